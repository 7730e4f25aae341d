//! Where programs, maps and links are pinned.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use abi::ABI_VERSION;
use abi::pins::{BPFFS, DIRECTORY};

use crate::Hook;

/// The pin directory of this ABI version.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

impl Default for Pins {
    fn default() -> Self {
        Self {
            root: Path::new(BPFFS)
                .join(DIRECTORY)
                .join(format!("v{ABI_VERSION}")),
        }
    }
}

impl Pins {
    /// The pin directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Directory of maps.
    pub fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    /// Directory of programs.
    pub fn programs(&self) -> PathBuf {
        self.root.join("programs")
    }

    /// Directory of links.
    pub fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    pub(crate) fn directories(&self) -> [PathBuf; 3] {
        [self.maps(), self.programs(), self.links()]
    }

    /// Makes the directories. They may be there.
    pub fn make_directories(&self) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        self.directories()
            .iter()
            .try_for_each(|path| builder.create(path))
    }

    /// Pin of a map.
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// Pin of a map that is about to take the place of the one before it.
    pub fn next_map(&self, name: &str) -> PathBuf {
        self.map(&format!("{name}+new"))
    }

    /// Pin of a program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs().join(name)
    }

    /// Pin of the link of `program` on `ifname`.
    ///
    /// bpffs refuses dots, which interface names may have (VLANs): they become `+`.
    pub fn link(&self, ifname: &str, program: &str) -> PathBuf {
        self.links()
            .join(format!("{}:{program}", ifname.replace('.', "+")))
    }

    /// The inverse of [`Pins::link`]: interface name and hook of a pin's file name.
    pub(crate) fn parse_link(name: &str) -> Option<(String, Hook)> {
        let (ifname, program) = name.split_once(':')?;
        Some((ifname.replace('+', "."), Hook::of(program)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_pin_is_parsed_back_and_has_no_dot() {
        let pins = Pins::default();
        let path = pins.link("eth0.7", "from_wire");
        assert_eq!(path, pins.links().join("eth0+7:from_wire"));
        assert_eq!(
            Pins::parse_link("eth0+7:from_wire"),
            Some(("eth0.7".into(), Hook::FROM_WIRE))
        );
        assert_eq!(Pins::parse_link("eth0:other"), None);
        assert_eq!(Pins::parse_link("eth0"), None);
    }

    #[test]
    fn where_nothing_is_pinned_no_interface_is_but_what_cannot_be_read_is_an_error() {
        let root = std::env::temp_dir().join(format!("no-pins-{}", std::process::id()));
        let pins = Pins { root: root.clone() };
        assert_eq!(crate::link::pinned(&pins).unwrap(), Vec::<String>::new());
        fs::write(&root, "").unwrap();
        let unreadable = crate::link::pinned(&pins);
        fs::remove_file(&root).unwrap();
        assert!(unreadable.is_err(), "{unreadable:?}");
    }
}
