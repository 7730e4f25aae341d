//! Which of the pinned maps can be used again as they are, whose entries can be carried over into new ones, and which are refused?
//!
//! Every map has a note of its [`Layout`] in map `layouts`, under its id in the kernel. A map without one is not ours. Sizes alone
//! tell nothing certain.

mod shape;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use abi::Layout;
use abi::pins::map;
use aya::maps::{HashMap, MapData, MapError, MapInfo, MapType};
use hooks::{Abi, Pins};
use tracing::info;

use crate::object::ObjectError;
pub(crate) use shape::{Role, Shape, expected};

/// Notes that fit: of every map, three times over.
const NOTES: u32 = 64;

/// How the entries of a map become those of another one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// As they are.
    Same,
    /// By this layout, from the revision before.
    Forward(Layout),
    /// By that layout, to the revision before, which is this build's.
    Back(Layout),
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same => write!(f, "as it is"),
            Self::Forward(layout) => write!(f, "forward to revision {}", layout.revision),
            Self::Back(layout) => write!(f, "back from revision {}", layout.revision),
        }
    }
}

/// A pinned map.
#[derive(Clone, Debug)]
struct Pinned {
    path: PathBuf,
    shape: Shape,
    layout: Option<Layout>,
}

/// What is to be done about a map.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    /// The pin of the map that this build uses: it is there, or it is to be made.
    pub(crate) pin: PathBuf,
    /// Whether it is there.
    pub(crate) is_there: bool,
    /// The pin of the map whose entries are to be carried over.
    pub(crate) source: Option<(PathBuf, Way)>,
    /// As many entries as the source has room for, if it is a table, whose size is configured.
    pub(crate) entries: Option<u32>,
}

/// The notes.
pub(crate) struct Notes(HashMap<MapData, u32, Abi<Layout>>);

impl Notes {
    /// Opens the map, or makes it.
    pub(crate) fn open(pins: &Pins) -> Result<Self, ObjectError> {
        let path = pins.map(map::LAYOUTS);
        let failed = |source| ObjectError::Inspect {
            path: path.clone(),
            source,
        };
        if !path.exists() {
            let new = HashMap::<MapData, u32, Abi<Layout>>::create(NOTES, 0).map_err(failed)?;
            new.pin(&path)
                .map_err(|error| failed(MapError::PinError { name: None, error }))?;
        }
        let data = MapData::from_pin(&path).map_err(failed)?;
        let map = aya::maps::Map::from_map_data(data).map_err(failed)?;
        HashMap::try_from(map)
            .map(Self)
            .map_err(|_other_sizes| ObjectError::NotOurs { path })
    }

    fn of(&self, id: u32) -> Option<Layout> {
        self.0.get(&id, 0).ok().map(|layout| layout.0)
    }

    /// Notes that the map which was made for `plan` has this build's layout.
    pub(crate) fn write(&mut self, plan: &Plan) -> Result<(), ObjectError> {
        let failed = |source| ObjectError::Inspect {
            path: plan.pin.clone(),
            source,
        };
        let id = MapInfo::from_pin(&plan.pin).map_err(failed)?.id();
        let layout = Abi(Layout::of(plan.name));
        self.0.insert(id, layout, 0).map_err(failed)
    }

    /// Forgets maps that are not pinned any more.
    pub(crate) fn tidy(&mut self, pins: &Pins) -> Result<(), ObjectError> {
        let failed = |source| ObjectError::Inspect {
            path: pins.map(map::LAYOUTS),
            source,
        };
        let mut pinned = Vec::new();
        for name in map::ALL {
            for path in [pins.map(name), pins.next_map(name)] {
                pinned.extend(MapInfo::from_pin(path).ok().map(|info| info.id()));
            }
        }
        let noted: Vec<u32> = self.0.keys().collect::<Result<_, _>>().map_err(failed)?;
        for id in noted.iter().filter(|id| !pinned.contains(id)) {
            self.0.remove(id).map_err(failed)?;
        }
        Ok(())
    }
}

/// Looks at the pins of a map. Nothing is changed but that pins go of which nobody will ever want anything.
pub(crate) fn plan(pins: &Pins, notes: &Notes, name: &'static str) -> Result<Plan, ObjectError> {
    let (role, shape) = expected(name).ok_or_else(|| ObjectError::NotOurs {
        path: pins.map(name),
    })?;
    let known = look(&pins.map(name), notes)?;
    let next = match look(&pins.next_map(name), notes)? {
        // Its maker ended before anything used it.
        Some(unused)
            if unused.layout.is_none() || known.is_none() && !is_ours(&unused, name, shape) =>
        {
            remove(&unused.path)?;
            None
        }
        next => next,
    };
    let made = |source, entries| Plan {
        name,
        pin: pins.next_map(name),
        is_there: false,
        source,
        entries,
    };
    let taken = |pinned: &Pinned, source| Plan {
        name,
        pin: pinned.path.clone(),
        is_there: true,
        source,
        entries: None,
    };
    let Some(known) = known else {
        return Ok(next.map_or_else(|| made(None, None), |next| taken(&next, None)));
    };
    let mine = |pinned: &Pinned| is_ours(pinned, name, shape) && fits(pinned, role, shape);
    if role == Role::Cache {
        return match next {
            Some(next) if !mine(&known) && mine(&next) => Ok(taken(&next, None)),
            next => {
                // An upgrade that was cut short has left it; programs that use it hold it themselves.
                next.map_or(Ok(()), |left| remove(&left.path))?;
                let is_usable = mine(&known);
                Ok(if is_usable {
                    taken(&known, None)
                } else {
                    made(None, None)
                })
            }
        };
    }
    match next {
        // Another upgrade has not ended: some programs may use the one map, some the other.
        Some(next) if mine(&known) => Ok(taken(
            &known,
            Some((next.path.clone(), way(&next, name, shape)?)),
        )),
        Some(next) if mine(&next) => Ok(taken(
            &next,
            Some((known.path.clone(), way(&known, name, shape)?)),
        )),
        Some(next) => Err(refusal(&next, name, shape)),
        None if mine(&known) => Ok(taken(&known, None)),
        None => {
            let way = way(&known, name, shape)?;
            let entries = (role == Role::Table).then_some(known.shape.entries);
            info!(
                map = name,
                %way,
                "the pinned map has another layout: its entries are carried over"
            );
            Ok(made(Some((known.path, way)), entries))
        }
    }
}

fn look(path: &Path, notes: &Notes) -> Result<Option<Pinned>, ObjectError> {
    let failed = |error| ObjectError::Inspect {
        path: path.to_owned(),
        source: MapError::IoError(error),
    };
    // What cannot be looked at is not "not there": a new map would take its place.
    if !path.try_exists().map_err(failed)? {
        return Ok(None);
    }
    let info = MapInfo::from_pin(path).and_then(|info| {
        let shape = Shape {
            kind: info.map_type()?,
            key: widen(info.key_size()),
            value: widen(info.value_size()),
            entries: info.max_entries(),
        };
        Ok((info.id(), shape))
    });
    let (id, shape) = info.map_err(|source| ObjectError::Inspect {
        path: path.to_owned(),
        source,
    })?;
    Ok(Some(Pinned {
        path: path.to_owned(),
        shape,
        layout: notes.of(id),
    }))
}

/// Whether its entries are this build's.
fn is_ours(pinned: &Pinned, name: &str, shape: Shape) -> bool {
    let sizes = |shape: Shape| (shape.kind, shape.key, shape.value);
    sizes(pinned.shape) == sizes(shape)
        && pinned.layout.map(|layout| layout.revision) == Some(Layout::of(name).revision)
}

/// A size that is configured counts for a new table only: to make one anew for it breaks its connections.
fn fits(pinned: &Pinned, role: Role, shape: Shape) -> bool {
    role == Role::Table || pinned.shape.entries == shape.entries
}

/// How the entries of a pinned map become this build's.
fn way(pinned: &Pinned, name: &str, shape: Shape) -> Result<Way, ObjectError> {
    let here = Layout::of(name);
    let refused = || refusal(pinned, name, shape);
    let there = pinned.layout.ok_or_else(refused)?;
    let before = |layout: &Layout| {
        (
            usize::from(layout.key_before),
            usize::from(layout.value_before),
        )
    };
    if is_ours(pinned, name, shape) {
        return Ok(Way::Same);
    }
    // Of a per-CPU map, every CPU's value would have to be cut into pieces.
    if pinned.shape.kind != shape.kind || shape.kind == MapType::PerCpuArray {
        return Err(refused());
    }
    if there.revision + 1 == here.revision
        && before(&here) == (pinned.shape.key, pinned.shape.value)
    {
        return Ok(Way::Forward(here));
    }
    if here.revision + 1 == there.revision && before(&there) == (shape.key, shape.value) {
        return Ok(Way::Back(there));
    }
    Err(refused())
}

fn refusal(pinned: &Pinned, name: &str, shape: Shape) -> ObjectError {
    let path = pinned.path.clone();
    let tell = |revision: u32, shape: Shape| {
        format!(
            "revision {revision}, {:?} with keys of {} and values of {} bytes",
            shape.kind, shape.key, shape.value
        )
    };
    match pinned.layout {
        None => ObjectError::NotOurs { path },
        Some(layout) => ObjectError::Layout {
            path,
            found: tell(layout.revision, pinned.shape),
            expected: tell(Layout::of(name).revision, shape),
        },
    }
}

/// Removes the maps that were made for `plans`, before anything uses them.
pub(crate) fn remove_made(plans: &[Plan]) -> Result<(), ObjectError> {
    let mut made = plans.iter().filter(|plan| !plan.is_there);
    made.try_for_each(|plan| remove(&plan.pin))
}

/// Removes a pin. Not there is success.
pub(crate) fn remove(path: &Path) -> Result<(), ObjectError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(ObjectError::Directory {
            path: path.to_owned(),
            source,
        }),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn widen(size: u32) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use abi::Binding;

    use super::*;

    #[test]
    fn every_map_has_a_layout_or_none_could_be_used_again() {
        for name in map::ALL {
            assert!(expected(name).is_some(), "{name}");
        }
    }

    fn pinned(name: &str, revision: u32, value: usize) -> Pinned {
        let (_, shape) = expected(name).unwrap();
        Pinned {
            path: name.into(),
            shape: Shape { value, ..shape },
            layout: Some(Layout {
                revision,
                ..Layout::FIRST
            }),
        }
    }

    fn way_of(pinned: &Pinned) -> Result<Way, ObjectError> {
        way(pinned, map::SNAT, expected(map::SNAT).unwrap().1)
    }

    #[test]
    fn sizes_alone_do_not_make_a_layout_the_same() {
        let size = size_of::<Binding>();
        let here = Layout::of(map::SNAT).revision;
        assert!(matches!(
            way_of(&pinned(map::SNAT, here, size)),
            Ok(Way::Same)
        ));
        let later = way_of(&pinned(map::SNAT, here + 1, size)).unwrap_err();
        let text = later.to_string();
        for part in ["snat", "revision 2", "revision 1", "keys of 12", "rm -r"] {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
        let mut unknown = pinned(map::SNAT, here, size);
        unknown.layout = None;
        assert!(matches!(way_of(&unknown), Err(ObjectError::NotOurs { .. })));
    }

    #[test]
    fn a_later_layout_is_gone_back_from_only_if_it_says_how_and_is_the_next_one() {
        let (_, shape) = expected(map::SNAT).unwrap();
        let [key, value] = [shape.key, shape.value].map(|size| u16::try_from(size).unwrap());
        let mut later = pinned(map::SNAT, 2, shape.value + 8);
        assert!(way_of(&later).is_err(), "it does not say how");
        let layout = later.layout.as_mut().unwrap();
        (layout.key_before, layout.value_before) = (key, value);
        assert!(matches!(way_of(&later), Ok(Way::Back(_))));
        later.layout.as_mut().unwrap().revision = 3;
        assert!(way_of(&later).is_err(), "that is a way back to revision 2");
        later.layout.as_mut().unwrap().revision = 2;
        later.shape.kind = MapType::LruHash;
        assert!(way_of(&later).is_err(), "another kind of map");
    }
}
