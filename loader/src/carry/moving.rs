//! One map's entries on their way into a map of another layout: what is copied, what goes again, and how its bytes are arranged there.

use std::collections::HashMap;
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

/// What a walk after the first one finds changed: hashes of the new map's keys, and of the old one's values.
#[derive(Debug, Default)]
pub(super) struct Copies {
    hasher: RandomState,
    /// Of each key, the value, and the last walk that found it.
    entries: HashMap<u64, (u64, u32)>,
    walk: u32,
}

impl Copies {
    /// How many entries were copied.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn begin_walk(&mut self) {
        self.walk += 1;
    }

    /// Whether the walk finds this for the first time.
    fn is_new(&mut self, key: &[u8], value: &[u8]) -> bool {
        let [key, value] = [key, value].map(|bytes| self.hasher.hash_one(bytes));
        let before = self.entries.insert(key, (value, self.walk));
        before.is_none_or(|(before, _)| before != value)
    }

    /// Whether any key was copied that the last walk did not find.
    fn misses_some(&self) -> bool {
        let mut entries = self.entries.values();
        entries.any(|(_, found)| *found != self.walk)
    }

    /// Whether this one was.
    fn misses(&self, key: &[u8]) -> bool {
        let copied = self.entries.get(&self.hasher.hash_one(key));
        copied.is_some_and(|(_, found)| *found != self.walk)
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
            let (key, value) = way.entry(key, value, to);
            if !copies.is_new(&key, &value) {
                return Ok(());
            }
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
    pub(super) fn remove_missing(&self) -> io::Result<()> {
        if !self.copies.misses_some() {
            return Ok(());
        }
        let mut missing = Vec::new();
        self.to.each(|key, _| {
            if self.copies.misses(key) {
                missing.push(key.to_vec());
            }
            Ok(())
        })?;
        missing.iter().try_for_each(|key| self.to.remove(key))
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
        copies.begin_walk();
        assert!(copies.is_new(b"stays", b"1") && copies.is_new(b"changes", b"1"));
        assert!(copies.is_new(b"goes", b"1") && !copies.misses_some());
        copies.begin_walk();
        assert!(!copies.is_new(b"stays", b"1") && copies.is_new(b"changes", b"2"));
        assert!(copies.is_new(b"comes", b"1") && copies.misses_some());
        for (key, is_missed) in [("goes", true), ("stays", false), ("changes", false)] {
            assert_eq!(copies.misses(key.as_bytes()), is_missed, "{key}");
        }
        assert!(!copies.misses(b"never copied"), "somebody else's");
    }

    #[test]
    fn a_piece_beyond_the_end_is_left_out() {
        let mut layout = Layout::FIRST;
        layout.value[0] = Piece::new(2, 0, 4);
        let converted = Way::Forward(layout).convert(&[1, 2, 3, 4], 4, |layout| &layout.value);
        assert_eq!(converted, [0; 4]);
    }
}
