//! One map's entries on their way into a map of another layout: what is copied, what goes again, and how its bytes are arranged there.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::PathBuf;

use abi::{Layout, Piece};
use hooks::RawMap;

use super::merge::merge;
use crate::layouts::{Role, Way};

/// A map's entries on their way.
#[derive(Debug)]
pub(super) struct Move {
    pub(super) name: &'static str,
    pub(super) role: Role,
    pub(super) way: Way,
    pub(super) from: RawMap,
    pub(super) source: PathBuf,
    pub(super) to: RawMap,
    /// Whether an earlier start may have written into the new map.
    pub(super) resumed: bool,
    /// What was copied.
    pub(super) copies: Copies,
}

/// What a walk after the first one finds changed, by hashes of the old map's keys and values: most entries of a walk are as they were, and
/// need not be arranged anew to see that.
#[derive(Debug, Default)]
pub(super) struct Copies {
    hasher: RandomState,
    /// By keys.
    entries: HashMap<u64, Copied>,
    walk: u32,
}

#[derive(Debug)]
struct Copied {
    value: u64,
    /// The new map's key.
    place: u64,
    /// The last walk that found it.
    found: u32,
}

/// An entry that is new or changed.
struct Change {
    key: u64,
    value: u64,
}

impl Copies {
    /// How many entries were copied and not removed again.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn begin_walk(&mut self) {
        self.walk += 1;
    }

    /// What the walk finds. `None`: it was copied as it is.
    fn change(&mut self, key: &[u8], value: &[u8]) -> Option<Change> {
        let [key, value] = [key, value].map(|bytes| self.hasher.hash_one(bytes));
        if let Some(copied) = self.entries.get_mut(&key) {
            copied.found = self.walk;
            if copied.value == value {
                return None;
            }
        }
        Some(Change { key, value })
    }

    /// That it is copied, to this key of the new map.
    fn note(&mut self, Change { key, value }: Change, place: &[u8]) {
        let (place, found) = (self.hasher.hash_one(place), self.walk);
        let copied = Copied {
            value,
            place,
            found,
        };
        self.entries.insert(key, copied);
    }

    /// Forgets what was copied and the last walk did not find. Hashes of its keys in the new map, unless others have them, too.
    fn take_missing(&mut self) -> HashSet<u64> {
        let walk = self.walk;
        let missing = self
            .entries
            .extract_if(|_, copied| copied.found != walk)
            .map(|(_, copied)| copied.place);
        let mut missing: HashSet<u64> = missing.collect();
        if !missing.is_empty() {
            for copied in self.entries.values() {
                missing.remove(&copied.place);
            }
        }
        missing
    }
}

impl Move {
    /// Copies what has changed since the last time.
    pub(super) fn copy(&mut self) -> io::Result<()> {
        let Self {
            name,
            role,
            way,
            from,
            to,
            copies,
            ..
        } = self;
        copies.begin_walk();
        from.each(|key, value| {
            let Some(change) = copies.change(key, value) else {
                return Ok(());
            };
            let (key, value) = way.entry(key, value, to);
            copies.note(change, &key);
            if *role != Role::Table {
                return to.put(&key, &value);
            }
            if to.add(&key, &value)? {
                return Ok(());
            }
            // Without room for it, a miss means "stack", and a lost binding heals.
            let Some(other) = to.get(&key)? else {
                return Ok(());
            };
            // Written only if it says more: a program may be writing it, too.
            match merge(name, &value, &other) {
                merged if merged == other => Ok(()),
                merged => to.put(&key, &merged),
            }
        })
    }

    /// Removes from the new map what is gone from the old one since it was copied: a connection whose binding was given up has the
    /// kernel's port. Only while no program writes the new map.
    pub(super) fn remove_missing(&mut self) -> io::Result<()> {
        let missing = self.copies.take_missing();
        if missing.is_empty() {
            return Ok(());
        }
        let mut keys = Vec::new();
        self.to.each(|key, _| {
            if missing.contains(&self.copies.hasher.hash_one(key)) {
                keys.push(key.to_vec());
            }
            Ok(())
        })?;
        keys.iter().try_for_each(|key| self.to.remove(key))
    }
}

impl Way {
    /// An entry as the new map has it.
    fn entry(&self, key: &[u8], value: &[u8], to: &RawMap) -> (Vec<u8>, Vec<u8>) {
        let size = |size: u32| usize::try_from(size).unwrap_or(0);
        let info = to.info();
        let keys: fn(&Layout) -> &[Piece] = |layout| &layout.key;
        (
            self.convert(key, size(info.key_size()), keys),
            self.convert(value, size(info.value_size()), |layout| &layout.value),
        )
    }

    fn convert(&self, bytes: &[u8], size: usize, pieces: impl Fn(&Layout) -> &[Piece]) -> Vec<u8> {
        let (layout, is_back) = match self {
            Self::Same => return bytes.to_vec(),
            Self::Forward(layout) => (layout, false),
            Self::Back(layout) => (layout, true),
        };
        let mut new = vec![0; size];
        for piece in pieces(layout) {
            let [from, to] = if is_back {
                [piece.now, piece.before]
            } else {
                [piece.before, piece.now]
            };
            let range =
                |start: u16| usize::from(start)..usize::from(start) + usize::from(piece.len);
            if let (Some(from), Some(to)) = (bytes.get(range(from)), new.get_mut(range(to))) {
                to.copy_from_slice(from);
            }
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aya::maps::MapData;
    use aya_obj::generated::bpf_map_type;

    use hooks::Pins;

    use super::super::Carry;
    use super::*;

    #[test]
    fn pieces_move_forward_and_back_and_the_rest_is_zero() {
        let mut layout = Layout::FIRST;
        layout.value[0] = Piece::new(0, 4, 2);
        layout.value[1] = Piece::new(3, 0, 1);
        let forward = Way::Forward(layout).convert(&[1, 2, 3, 4], 8, |layout| &layout.value);
        assert_eq!(forward, [4, 0, 0, 0, 1, 2, 0, 0]);
        let back = Way::Back(layout).convert(&forward, 4, |layout| &layout.value);
        assert_eq!(back, [1, 2, 0, 4]);
    }

    #[test]
    fn what_changes_between_walks_is_copied_again_and_what_is_gone_is_missed() {
        let mut copies = Copies::default();
        let is_new = |copies: &mut Copies, [key, value]: [&str; 2], place: &str| {
            let change = copies.change(key.as_bytes(), value.as_bytes());
            let is_new = change.is_some();
            if let Some(change) = change {
                copies.note(change, place.as_bytes());
            }
            is_new
        };
        copies.begin_walk();
        for key in ["stays", "changes", "goes", "goes, but its twin"] {
            let place = key.strip_prefix("goes, but ").unwrap_or(key);
            assert!(is_new(&mut copies, [key, "1"], place), "{key}");
        }
        assert!(is_new(&mut copies, ["stays, the twin", "1"], "its twin"));
        assert!(copies.take_missing().is_empty());
        copies.begin_walk();
        assert!(!is_new(&mut copies, ["stays", "1"], "stays"));
        assert!(!is_new(&mut copies, ["stays, the twin", "1"], "its twin"));
        assert!(is_new(&mut copies, ["changes", "2"], "changes"));
        assert!(is_new(&mut copies, ["comes", "1"], "comes"));
        let goes = copies.hasher.hash_one("goes".as_bytes());
        assert_eq!(copies.take_missing(), HashSet::from([goes]));
        assert_eq!((copies.len(), copies.take_missing().len()), (4, 0));
        assert!(is_new(&mut copies, ["goes", "1"], "goes"), "it is back");
    }

    /// A map of the kernel that nobody else sees.
    fn map(key: u32, value: u32) -> RawMap {
        let hash = bpf_map_type::BPF_MAP_TYPE_HASH as u32;
        let shape = aya_obj::Map::new_from_params(hash, key, value, 16, 0);
        RawMap::new(MapData::create(shape, "carried", None).unwrap()).unwrap()
    }

    fn entries(map: &RawMap) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut entries = BTreeMap::new();
        let read = map.each(|key, value| {
            entries.insert(key.to_vec(), value.to_vec());
            Ok(())
        });
        read.unwrap();
        entries
    }

    /// Maps are root's, and so is this test: others have nothing to try it on.
    #[test]
    fn what_is_gone_from_the_old_map_goes_from_the_new_one_unless_programs_may_have_written_it() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        for resumed in [false, true] {
            // Keys of four bytes go to the end of eight.
            let mut layout = Layout::FIRST;
            layout.key[0] = Piece::new(0, 4, 4);
            layout.value[0] = Piece::new(0, 0, 1);
            let one = Move {
                name: "flows",
                role: Role::Table,
                way: Way::Forward(layout),
                from: map(4, 1),
                source: PathBuf::new(),
                to: map(8, 1),
                resumed,
                copies: Copies::default(),
            };
            let new = |key: [u8; 4]| [[0; 4], key].concat();
            let mut carry = Carry::of(&Pins::default(), Vec::new(), vec![one]);
            for key in [*b"stay", *b"gone"] {
                carry.moves[0].from.put(&key, b"1").unwrap();
            }
            // A program's, where an earlier start had begun.
            carry.moves[0].to.put(&new(*b"else"), b"1").unwrap();
            carry.tables().unwrap();
            assert_eq!(entries(&carry.moves[0].to).len(), 3);
            // What is as it was is not arranged again: it would go elsewhere.
            let nowhere = Way::Forward(Layout::FIRST);
            let way = std::mem::replace(&mut carry.moves[0].way, nowhere);
            carry.tables().unwrap();
            assert_eq!(entries(&carry.moves[0].to).len(), 3);
            carry.moves[0].way = way;

            carry.moves[0].from.remove(b"gone").unwrap();
            carry.moves[0].from.put(b"come", b"1").unwrap();
            carry.tables().unwrap();
            carry.remove_missing().unwrap();
            let found = entries(&carry.moves[0].to);
            let is_there = |key| found.contains_key(&new(key));
            assert!(
                [*b"stay", *b"come", *b"else"].into_iter().all(is_there),
                "{found:?}"
            );
            assert_eq!(is_there(*b"gone"), resumed, "resumed: {resumed}");

            // Its connection is there again: so is its entry.
            carry.moves[0].from.put(b"gone", b"1").unwrap();
            carry.tables().unwrap();
            assert_eq!(entries(&carry.moves[0].to).len(), 4);
            assert_eq!(carry.moves[0].copies.len(), 3);
        }
    }

    #[test]
    fn a_piece_beyond_the_end_is_left_out() {
        let mut layout = Layout::FIRST;
        layout.value[0] = Piece::new(2, 0, 4);
        let converted = Way::Forward(layout).convert(&[1, 2, 3, 4], 4, |layout| &layout.value);
        assert_eq!(converted, [0; 4]);
    }
}
