//! A kernel, unpacked, and the initramfs that leads from it to the host's files.

use super::packages::{Apt, Package};
use crate::{command, workspace};
use anyhow::{Context as _, Result, bail, ensure};
use object::Object as _;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const INIT: &str = include_str!("init.sh");
const GUEST: &str = include_str!("guest.sh");
/// Modules without which the root cannot be mounted. Kernels may have them built in.
const MODULES: [&str; 3] = ["virtio_pci", "virtiofs", "overlay"];

/// A kernel in `target/vm/VERSION`.
#[derive(Debug)]
pub(super) struct Kernel {
    folder: PathBuf,
    /// What `uname -r` says in it.
    release: String,
    /// The package's version, which begins with the kernel's.
    pub(super) version: String,
}

impl Kernel {
    /// The kernel that an earlier call has unpacked. `rm -r target/vm/VERSION` makes the next call look for a newer one.
    pub(super) fn unpacked(version: &str) -> Result<Option<Self>> {
        let folder = folder(version);
        if !folder.join("root").is_dir() {
            return Ok(None);
        }
        Self::open(folder).map(Some)
    }

    pub(super) fn fetch(version: &str, apt: &Apt) -> Result<Self> {
        let package = apt.newest(version)?;
        let folder = folder(version);
        let new = folder.join("new");
        if new.exists() {
            fs::remove_dir_all(&new).with_context(|| format!("remove {}", new.display()))?;
        }
        fs::create_dir_all(&new).with_context(|| format!("make {}", new.display()))?;
        apt.unpack(&package, &new)
            .with_context(|| format!("get the package {}", package.name))?;
        finish(&new, &package)?;
        fs::rename(&new, folder.join("root")).context("move the kernel into place")?;
        Self::open(folder)
    }

    fn open(folder: PathBuf) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join("root").join(name);
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        let (release, version) = (read("release")?, read("version")?);
        Ok(Self {
            folder,
            release,
            version,
        })
    }

    /// For files about this kernel.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Since 7.x it lies beside its modules.
    pub(super) fn image(&self) -> PathBuf {
        let beside = self.modules().join("vmlinuz");
        let boot = self.folder.join("root/boot");
        if beside.exists() {
            beside
        } else {
            boot.join(format!("vmlinuz-{}", self.release))
        }
    }

    fn modules(&self) -> PathBuf {
        self.folder.join("root/lib/modules").join(&self.release)
    }

    /// Writes the initramfs that runs `checks`, lines for `guest.sh`.
    pub(super) fn initramfs(&self, checks: &str, busybox: &Path) -> Result<PathBuf> {
        let stage = self.folder.join("initramfs");
        if stage.exists() {
            fs::remove_dir_all(&stage).with_context(|| format!("remove {}", stage.display()))?;
        }
        for folder in ["bin", "dev", "modules"] {
            let folder = stage.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        }
        let program = fs::read(busybox).context("read busybox")?;
        let program = object::File::parse(&*program).context("understand busybox")?;
        ensure!(
            program.section_by_name(".interp").is_none(),
            "{} needs libraries, which no initramfs has; install busybox-static",
            busybox.display()
        );
        fs::copy(busybox, stage.join("bin/busybox")).context("copy busybox")?;
        let modules = self.modules();
        let settings = format!("MODULES='{}'\n", modules.display());
        for (name, text) in [
            ("init", INIT),
            ("guest.sh", GUEST),
            ("checks", checks),
            ("settings", &settings),
        ] {
            let path = stage.join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .with_context(|| format!("make {} executable", path.display()))?;
        }
        let dependencies = fs::read_to_string(modules.join("modules.dep"))
            .context("read the modules' dependencies")?;
        for (number, module) in needed(&dependencies).iter().enumerate() {
            let to = stage.join("modules").join(format!("{number:02}"));
            unpack_module(&modules.join(module), &to, busybox)
                .with_context(|| format!("unpack the module {module}"))?;
        }
        let archive = self.folder.join("initramfs.cpio");
        let file = File::create(&archive).context("create the initramfs")?;
        let script = "find . | \"$0\" cpio --quiet -o -H newc";
        let mut cpio = Command::new("sh");
        cpio.args(["-c", script]).arg(busybox).current_dir(&stage);
        command::run(cpio.stdout(file).stderr(Stdio::null())).context("write the initramfs")?;
        Ok(archive)
    }
}

fn folder(version: &str) -> PathBuf {
    workspace::target_dir().join("vm").join(version)
}

/// Makes an unpacked package what [`Kernel`] expects: `lib/modules/RELEASE` with its list of dependencies, and what it is.
fn finish(root: &Path, package: &Package) -> Result<()> {
    if !root.join("lib").exists() {
        symlink("usr/lib", root.join("lib")).context("link lib")?;
    }
    let modules = root.join("lib/modules");
    let mut releases = fs::read_dir(&modules).context("look for the kernel's modules")?;
    let release = releases.next().context("there is no folder of modules")??;
    let release = release.file_name().to_string_lossy().into_owned();
    let program = crate::setup::find_program("depmod").context("depmod is not there")?;
    command::run(Command::new(program).arg("-b").arg(root).arg(&release))
        .context("list the modules' dependencies")?;
    fs::write(root.join("release"), &release).context("note the kernel's release")?;
    fs::write(root.join("version"), &package.version).context("note the package's version")
}

/// The files of [`MODULES`] and of what they need, in the order in which they must be loaded; from `modules.dep`, where
/// every module names all that it needs, what must be loaded first last.
fn needed(dependencies: &str) -> Vec<&str> {
    let mut files = Vec::new();
    for module in MODULES {
        let line = dependencies.lines().find_map(|line| {
            let (file, needs) = line.split_once(':')?;
            let name = file.rsplit('/').next()?.split('.').next()?;
            (name == module).then_some((file, needs))
        });
        let Some((file, needs)) = line else { continue };
        for file in needs.split_whitespace().rev().chain([file]) {
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    files
}

/// busybox's `insmod` takes plain modules only.
fn unpack_module(from: &Path, to: &Path, busybox: &Path) -> Result<()> {
    let applet = match from.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => "cat",
        Some("xz") => "xzcat",
        Some("gz") => "zcat",
        other => bail!("a module that ends in {other:?} cannot be unpacked"),
    };
    let plain = File::create(to)?;
    command::run(Command::new(busybox).arg(applet).arg(from).stdout(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need_and_once() {
        let dependencies = "kernel/fs/fuse/virtiofs.ko: kernel/v/virtio.ko kernel/v/virtio_ring.ko kernel/fs/fuse.ko
kernel/fs/overlayfs/overlay.ko.xz:
kernel/v/virtio_pci.ko: kernel/v/virtio_pci_modern_dev.ko kernel/v/virtio.ko kernel/v/virtio_ring.ko
kernel/v/virtio_pci_modern_dev.ko:";
        assert_eq!(
            needed(dependencies),
            [
                "kernel/v/virtio_ring.ko",
                "kernel/v/virtio.ko",
                "kernel/v/virtio_pci_modern_dev.ko",
                "kernel/v/virtio_pci.ko",
                "kernel/fs/fuse.ko",
                "kernel/fs/fuse/virtiofs.ko",
                "kernel/fs/overlayfs/overlay.ko.xz",
            ]
        );
    }
}
