//! Prints the documents that are made from `vnetctl`'s commands, as one JSON object: path in the repository → content.
#![expect(clippy::print_stdout, reason = "`cargo xtask docs` reads it")]

use std::collections::BTreeMap;

use clap::Command;
use clap_mangen::Man;

fn main() -> anyhow::Result<()> {
    let mut documents = BTreeMap::new();
    let mut command = loader::vnetctl::command().disable_help_subcommand(true);
    command.build();
    man(&mut documents, &command)?;
    for (name, schema) in loader::vnetctl::schemas() {
        let text = serde_json::to_string_pretty(&schema)? + "\n";
        documents.insert(format!("docs/schema/{name}.json"), text);
    }
    println!("{}", serde_json::to_string(&documents)?);
    Ok(())
}

/// The page of a command and those of its subcommands, named as git names its own: `vnetctl-ipam-gc.1`.
fn man(documents: &mut BTreeMap<String, String>, command: &Command) -> anyhow::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    documents.insert(format!("docs/man/{name}.1"), String::from_utf8(page)?);
    command
        .get_subcommands()
        .try_for_each(|below| man(documents, below))
}
