//! `vnetctl explain` and `completions` need nothing but themselves.

use super::*;

#[test]
fn codes_and_reasons_are_explained_on_a_node_without_a_loader() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    let node = lab.node(1);
    let code = node.exec(&["vnetctl", "explain", "11"])?;
    assert!(code.starts_with("code 11: try again\n"), "{code}");
    assert!(code.contains("**") || code.contains("What to do"), "{code}");
    let reason = node.exec(&["vnetctl", "explain", "source_address"])?;
    assert!(reason.contains("The pod used a source address"), "{reason}");
    let all = node.exec(&["vnetctl", "explain"])?;
    assert!(
        all.contains("code  199") && all.contains("drop  wireserver"),
        "{all}"
    );
    let unknown = node.feed(&["vnetctl", "explain", "12345"], b"")?;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        unknown.stderr.contains("lists all of them"),
        "{}",
        unknown.stderr
    );
    Ok(())
}

#[test]
fn completions_come_from_the_program_itself() -> Result {
    let lab = Lab::new().nodes(1).build()?;
    for shell in ["bash", "zsh", "fish"] {
        let script = lab.node(1).exec(&["vnetctl", "completions", shell])?;
        assert!(script.contains("explain"), "{shell}");
    }
    // Bash believes it.
    let line = "source <(vnetctl completions bash); complete -p vnetctl";
    let done = lab.node(1).exec(&["bash", "-c", line])?;
    assert!(done.contains("_vnetctl"), "{done}");
    Ok(())
}
