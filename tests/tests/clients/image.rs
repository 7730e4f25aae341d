//! An image that needs no registry: the machine's static `busybox`, which sleeps.

use anyhow::Result;
use lab::Node;

/// What tests call it.
pub(crate) const IMAGE: &str = "localhost/lab/sleeper:1";
/// Where [`build`] leaves its archive in the node.
pub(crate) const ARCHIVE: &str = "/tmp/image.tar";

/// An archive as `docker save` writes them, which all runtimes read.
const SCRIPT: &str = r#"
set -eu
dir=$(mktemp -d)
cd "$dir"
mkdir -p rootfs/bin rootfs/etc rootfs/proc rootfs/sys rootfs/dev rootfs/tmp
cp "$(command -v busybox)" rootfs/bin/busybox
for name in sh sleep cat wget true; do ln -s busybox "rootfs/bin/$name"; done
case $(uname -m) in x86_64) machine=amd64 ;; aarch64) machine=arm64 ;; *) machine=$(uname -m) ;; esac
tar -C rootfs -cf layer.tar .
sum=$(sha256sum layer.tar | cut -d' ' -f1)
echo '{"architecture":"'"$machine"'","os":"linux","config":{"Cmd":["/bin/sleep","10000000"],"Env":["PATH=/bin"]},
  "rootfs":{"type":"layers","diff_ids":["sha256:'"$sum"'"]}}' > config.json
echo '[{"Config":"config.json","RepoTags":["'"$1"'"],"Layers":["layer.tar"]}]' > manifest.json
tar -cf "$2" manifest.json config.json layer.tar
rm -r "$dir"
"#;

pub(crate) fn build(node: &Node) -> Result<()> {
    node.exec(&["sh", "-c", SCRIPT, "build", IMAGE, ARCHIVE])?;
    Ok(())
}
