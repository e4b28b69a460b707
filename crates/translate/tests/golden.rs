//! Translation by example: `golden/<feature>/<case>.in.yaml` has objects as a user would apply them, `.out.yaml` the result.
//! `UPDATE_GOLDEN=1` writes the outputs; a change is reviewed by the difference of its outputs.
//!
//! The first document of an input has the settings of the case, see [`input::Case`].

#[path = "golden/input.rs"]
mod input;
#[path = "golden/output.rs"]
mod output;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases = Vec::new();
    find(&root, &mut cases);
    cases.sort();
    let trials = cases
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
            let name = name.trim_end_matches(".in.yaml").to_owned();
            Trial::test(name, move || check(&path))
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn find(folder: &Path, cases: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder of cases").flatten() {
        let path = entry.path();
        if path.is_dir() {
            find(&path, cases);
        } else if path.to_string_lossy().ends_with(".in.yaml") {
            cases.push(path);
        }
    }
}

fn check(path: &Path) -> Result<(), Failed> {
    let case = input::read(&fs::read_to_string(path)?)?;
    let translation = fairway_translate::translate(&case.objects, &case.options, case.now);
    let found = output::render(&case, &translation)?;
    if fairway_channel::carried(&translation.snapshot)? != translation.snapshot {
        return Err("a proxy in another process would serve something else".into());
    }
    let expected =
        path.with_file_name(path.file_name().unwrap_or_default().to_string_lossy().replace(".in.yaml", ".out.yaml"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&expected, found)?;
        return Ok(());
    }
    let wanted = fs::read_to_string(&expected).unwrap_or_default();
    if wanted == found {
        return Ok(());
    }
    let differs = wanted.lines().zip(found.lines()).position(|(a, b)| a != b);
    let line = differs.unwrap_or_else(|| wanted.lines().count().min(found.lines().count()));
    Err(format!(
        "{} differs from line {} on; UPDATE_GOLDEN=1 writes it anew\nexpected: {}\nfound:    {}",
        expected.display(),
        line + 1,
        wanted.lines().nth(line).unwrap_or("(end)"),
        found.lines().nth(line).unwrap_or("(end)")
    )
    .into())
}
