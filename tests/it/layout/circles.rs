//! Circles of imports between files: their size is bounded, because a file of a large circle cannot be understood
//! alone.
//!
//! A path through a module that re-exports or imports the item counts as a path to the file that defines the item.
//! Module declarations are not imports.

use std::collections::{BTreeMap, BTreeSet};

use super::paths::{UsedPath, is_word, paths, uses, words};
use super::sources::{Source, read_sources};

/// The most files that may import each other in a circle.
const MAX_CIRCLE: usize = 2;

#[test]
fn imports_between_files_form_no_circle_over_two() {
    let circles = ImportGraph::new(&read_sources()).circles();
    let large: Vec<String> =
        circles.iter().filter(|circle| circle.files.len() > MAX_CIRCLE).map(Circle::render).collect();
    assert!(large.is_empty(), "{} circles of more than {MAX_CIRCLE} files:\n{}", large.len(), large.join("\n"));
}

#[test]
fn circle_through_re_exports_is_found() {
    let sources = [
        ("a/mod.rs", "mod one; mod two; mod three; pub use one::One; use two::Two as Second;"),
        ("a/one.rs", "use super::Second; pub(in crate::a) struct One;"),
        ("a/two.rs", "pub struct Two; fn f() { crate::b::g() }"),
        ("b.rs", "use crate::a::{One};"),
        ("a/three.rs", "use super::one::One;"),
    ];
    let circles = ImportGraph::new(&sources.map(|(path, text)| Source::new(path, text))).circles();
    let files: Vec<_> = circles.iter().map(|circle| circle.files.clone()).collect();
    assert_eq!(files, [["a/one.rs", "a/two.rs", "b.rs"]]);
}

/// Files that import each other, directly or through others of them.
struct Circle {
    files: Vec<String>,
    /// The imports within the circle.
    imports: Vec<(String, String)>,
}

impl Circle {
    /// A list of the files, with the imports of each within the circle.
    fn render(&self) -> String {
        let imports_of = |file: &String| {
            let targets = self.imports.iter().filter(|(from, _)| from == file).map(|(_, to)| to.as_str());
            format!("  {file} -> {}", targets.collect::<Vec<_>>().join(", "))
        };
        let lines: Vec<String> = self.files.iter().map(imports_of).collect();
        format!("{} files:\n{}", self.files.len(), lines.join("\n"))
    }
}

/// A module, which is a file.
struct Module<'a> {
    file: &'a str,
    uses: Vec<(bool, UsedPath)>,
    /// The code without use declarations.
    body: String,
}

type ModulePath = Vec<String>;

/// All modules by their paths.
struct ImportGraph<'a> {
    modules: BTreeMap<ModulePath, Module<'a>>,
}

impl<'a> ImportGraph<'a> {
    fn new(sources: &'a [Source]) -> Self {
        let module = |source: &'a Source| {
            let (uses, body) = uses(&source.code);
            (module_path(&source.path), Module { file: &source.path, uses, body })
        };
        Self { modules: sources.iter().filter(|source| source.path != "main.rs").map(module).collect() }
    }

    /// The strongly connected components with more than one file.
    fn circles(&self) -> Vec<Circle> {
        let imports: BTreeMap<&ModulePath, BTreeSet<ModulePath>> =
            self.modules.keys().map(|path| (path, self.imports_of(path))).collect();
        let reachable: BTreeMap<&ModulePath, BTreeSet<&ModulePath>> =
            self.modules.keys().map(|path| (path, reachable_from(path, &imports))).collect();
        let mut assigned = BTreeSet::new();
        let mut circles = Vec::new();
        for path in self.modules.keys() {
            let is_member = |other: &&ModulePath| reachable[path].contains(other) && reachable[*other].contains(path);
            let members: Vec<&ModulePath> = self.modules.keys().filter(is_member).collect();
            if members.len() > 1 && assigned.insert(members[0]) && members[0] == path {
                circles.push(self.circle(&members, &imports));
            }
        }
        circles
    }

    fn circle(&self, members: &[&ModulePath], imports: &BTreeMap<&ModulePath, BTreeSet<ModulePath>>) -> Circle {
        let file = |path: &ModulePath| self.modules[path].file.to_owned();
        let within = |from: &&ModulePath| {
            let targets = imports[*from].iter().filter(|to| members.contains(to));
            targets.map(|to| (file(from), file(to))).collect::<Vec<_>>()
        };
        Circle {
            files: members.iter().map(|path| file(path)).collect(),
            imports: members.iter().flat_map(within).collect(),
        }
    }

    /// The modules that define what a module imports.
    fn imports_of(&self, path: &ModulePath) -> BTreeSet<ModulePath> {
        let module = &self.modules[path];
        let is_used =
            |(is_public, used): &&(bool, UsedPath)| !is_public || !words(&module.body, used.name()).is_empty();
        let declared = module.uses.iter().filter(is_used).map(|(_, used)| used.segments.clone());
        let children = self.modules.keys().filter(|child| child.len() == path.len() + 1 && child.starts_with(path));
        let roots = children.filter_map(|child| child.last().map(String::as_str)).chain(["crate", "super", "self"]);
        let in_body = roots.flat_map(|root| {
            let with_root = move |mut path: Vec<String>| {
                path.insert(0, root.to_owned());
                path
            };
            paths(&module.body, root).into_iter().map(with_root)
        });
        let resolved = declared.chain(in_body).filter_map(|segments| self.resolve(path, &segments, 0));
        resolved.filter(|target| target != path && !target.is_empty()).collect()
    }

    /// The module that defines the item at `segments`, seen from `module`; `None` for other crates.
    fn resolve(&self, module: &[String], segments: &[String], depth: usize) -> Option<ModulePath> {
        const MAX_DEPTH: usize = 16;
        let (first, mut rest) = segments.split_first()?;
        let mut current: ModulePath = match first.as_str() {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module[..module.len().checked_sub(1)?].to_vec(),
            child if self.modules.contains_key(&[module, &[child.to_owned()]].concat()) => {
                [module, &[child.to_owned()]].concat()
            }
            _ => return None,
        };
        while let Some((segment, further)) = rest.split_first() {
            match segment.as_str() {
                "self" => {}
                "super" => drop(current.pop()?),
                "*" => return Some(current),
                name => {
                    let child = [&current[..], &[name.to_owned()]].concat();
                    if !self.modules.contains_key(&child) {
                        return (depth < MAX_DEPTH).then(|| self.definition(&current, name, further, depth));
                    }
                    current = child;
                }
            }
            rest = further;
        }
        Some(current)
    }

    /// The module that defines `name`, which is found in `module`; `further` segments lead from there.
    fn definition(&self, module: &ModulePath, name: &str, further: &[String], depth: usize) -> ModulePath {
        let Some(found) = self.modules.get(module) else { return module.clone() };
        let is_named = |(_, used): &&(bool, UsedPath)| used.name() == name;
        let is_glob = |(_, used): &&(bool, UsedPath)| used.name() == "*";
        if let Some((_, used)) = found.uses.iter().find(is_named) {
            let segments = [&used.segments[..], further].concat();
            return self.resolve(module, &segments, depth + 1).unwrap_or_else(|| module.clone());
        }
        let through_globs = found.uses.iter().filter(is_glob).filter_map(|(_, used)| {
            let target = self.resolve(module, &used.segments, depth + 1)?;
            defines(&self.modules.get(&target)?.body, name).then_some(target)
        });
        through_globs.into_iter().next().unwrap_or_else(|| module.clone())
    }
}

/// Whether `code` defines an item of this name.
fn defines(code: &str, name: &str) -> bool {
    const KEYWORDS: [&str; 8] = ["fn", "struct", "enum", "trait", "type", "const", "static", "union"];
    words(code, name).into_iter().any(|at| {
        let before = code[..at].trim_end();
        let keyword = before.rsplit(|char: char| !is_word(char)).next().unwrap_or_default();
        KEYWORDS.contains(&keyword)
    })
}

/// The module path of a file: `cache/mod.rs` and `cache.rs` are `cache`.
fn module_path(file: &str) -> ModulePath {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').filter(|part| *part != "lib").map(str::to_owned).collect()
}

fn reachable_from<'a>(
    start: &'a ModulePath,
    imports: &'a BTreeMap<&'a ModulePath, BTreeSet<ModulePath>>,
) -> BTreeSet<&'a ModulePath> {
    let (mut reached, mut pending) = (BTreeSet::from([start]), vec![start]);
    while let Some(path) = pending.pop() {
        pending.extend(imports.get(path).into_iter().flatten().filter(|target| reached.insert(target)));
    }
    reached
}
