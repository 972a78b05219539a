//! Replay of the kept inputs.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use super::TARGETS;

/// The most files and bytes of one corpus, and the most bytes of one file.
const MAX_FILES: usize = 30;
const MAX_FILE_BYTES: usize = 8 << 10;
const MAX_CORPUS_BYTES: usize = 64 << 10;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

/// The names in a folder, without extensions.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder("corpus").join(target)).unwrap().map(|entry| entry.unwrap().path());
    let mut inputs: Vec<_> = entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    inputs.sort();
    inputs
}

#[test]
fn each_target_has_a_program_and_a_corpus() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(targets.len(), TARGETS.len());
    assert_eq!(names(&folder("corpus")), targets);
    assert_eq!(names(&folder("fuzz_targets")), targets);
    let manifest: toml::Table = fs::read_to_string(folder("Cargo.toml")).unwrap().parse().unwrap();
    let programs = manifest["bin"].as_array().unwrap().iter();
    assert_eq!(programs.map(|program| program["name"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>(), targets);
    for target in targets {
        let program = fs::read_to_string(folder("fuzz_targets").join(format!("{target}.rs"))).unwrap();
        assert!(program.contains(&format!("koregate::fuzz_targets::{target}(")), "{target}");
    }
}

#[test]
fn corpora_are_small() {
    for (target, _) in TARGETS {
        let sizes: Vec<usize> = inputs(target).iter().map(|(_, input)| input.len()).collect();
        assert!((1..=MAX_FILES).contains(&sizes.len()), "{target} has {} inputs", sizes.len());
        assert!(
            sizes.iter().all(|size| *size <= MAX_FILE_BYTES),
            "{target} has an input of more than {MAX_FILE_BYTES}"
        );
        assert!(sizes.iter().sum::<usize>() <= MAX_CORPUS_BYTES, "{target}");
    }
}

#[test]
fn kept_inputs_violate_no_property() {
    let all = TARGETS.into_iter().flat_map(|(target, run)| inputs(target).into_iter().map(move |input| (run, input)));
    let failed = all.filter(|(run, (_, input))| catch_unwind(|| run(input)).is_err());
    let failed: Vec<String> = failed.map(|(_, (path, _))| path.display().to_string()).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
