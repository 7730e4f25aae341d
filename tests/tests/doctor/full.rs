//! A table that is nearly full is found also when no loader runs: then nothing makes room in it.

use super::*;

/// Of 1024.
const MANY: u32 = 800;

/// Lines for `bpftool batch` that put entries into a pinned map whose keys begin with a number.
fn entries(map: &str, key: usize, value: usize) -> String {
    let pin = hooks::Pins::default().map(map);
    let line = |number: u32| {
        let mut bytes = number.to_be_bytes().to_vec();
        bytes.resize(key, 0);
        let hex = |bytes: &[u8]| {
            let hex = bytes.iter().map(|byte| format!("{byte:02x}"));
            hex.collect::<Vec<_>>().join(" ")
        };
        let (pin, key, value) = (pin.display(), hex(&bytes), hex(&vec![0; value]));
        format!("map update pinned {pin} key hex {key} value hex {value}\n")
    };
    (0..MANY).map(line).collect()
}

#[test]
fn tables_that_are_nearly_full_are_found_without_a_loader() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    let node = lab.node(1);
    node.write(
        "/etc/azure-vnet/loader.yaml",
        "flowsMax: 1024\nsnatMax: 1024\n",
    )?;
    node.start_loader()?;
    node.loader().kill9()?;
    let names = || -> Result<Vec<String>> {
        let found = findings(node)?.into_iter();
        Ok(found.map(|finding| finding.name).collect())
    };
    assert!(!names()?.contains(&"tables".to_owned()), "{:?}", names()?);
    let sizes = |map| -> Result<[usize; 2]> {
        let pin = hooks::Pins::default().map(map).display().to_string();
        let shown = node.exec(&["bpftool", "-j", "map", "show", "pinned", &pin])?;
        let shown: Value = serde_json::from_str(&shown)?;
        let size = |key: &str| usize::try_from(shown[key].as_u64().unwrap()).unwrap();
        Ok([size("bytes_key"), size("bytes_value")])
    };
    let mut batch = String::new();
    for map in ["flows", "snat"] {
        let [key, value] = sizes(map)?;
        batch += &entries(map, key, value);
    }
    node.write("/tmp/batch", &batch)?;
    node.exec(&["bpftool", "batch", "file", "/tmp/batch"])?;
    let found = findings(node)?;
    let full = found.iter().find(|finding| finding.name == "tables");
    let full = full.unwrap_or_else(|| panic!("{found:#?}"));
    for part in ["flows 800 of 1024", "snat 800 of 1024"] {
        assert!(full.what.contains(part), "{full:?}");
    }
    assert!(
        full.remedy.contains("raise flowsMax or snatMax"),
        "{full:?}"
    );
    Ok(())
}
