//! Developer tasks that are no part of the product: the schema table of `api::schema` is made and
//! checked here.
//!
//! ```text
//! xtask table  --definitions _definitions.json --upstream DIR   write src/api/schema/table.txt
//! xtask verify --definitions _definitions.json                  is the committed table what it would be?
//! ```
//! `make schema` runs the second. `_definitions.json` comes with the PyPI package `kubernetes-validate` (folder `v1.36.0-local`);
//! `DIR` holds upstream's published repositories `api`, `apimachinery`, `apiextensions-apiserver` and
//! `kube-aggregator` at the tag of that release. The table holds facts only (names, types, numbers,
//! flags), never upstream's text. `verify` needs no upstream sources: what only they tell (protobuf
//! numbers, Go's pointers and type names) is taken from the committed table, everything else is made
//! again from the definitions.

mod definitions;
mod gosource;
mod joined;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../api/schema/table.txt");

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(said) => {
            say(&said);
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "a command line tool for developers")]
fn say(text: &str) {
    println!("{text}");
}

fn run(args: &[String]) -> Result<String> {
    let definitions = || option(args, "--definitions").and_then(|path| definitions::Definitions::read(&path));
    match args.first().map(String::as_str) {
        Some("table") => {
            let upstream = gosource::Sources::read(&option(args, "--upstream")?)?;
            let table = joined::table(&upstream, &definitions()?)?;
            std::fs::write(TABLE, table.to_string())?;
            Ok(format!("{} types, {} fields", table.types.len(), table.field_count()))
        }
        Some("verify") => {
            let committed = std::fs::read_to_string(TABLE).context(TABLE)?;
            let mut table = table::Table::parse(&committed)?;
            definitions()?.apply(&mut table)?;
            if table.to_string() != committed {
                bail!("{} differs from what `xtask table` would write", Path::new(TABLE).display());
            }
            Ok(format!("{} types, {} fields: as committed", table.types.len(), table.field_count()))
        }
        Some(_) | None => bail!("usage: xtask table|verify --definitions FILE [--upstream DIR]"),
    }
}

fn option(args: &[String], name: &str) -> Result<PathBuf> {
    let at = args.iter().position(|a| a == name).with_context(|| format!("{name} is missing"))?;
    args.get(at + 1).map(PathBuf::from).with_context(|| format!("{name} needs a path"))
}
