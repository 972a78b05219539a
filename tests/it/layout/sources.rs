//! The sources of `src/` as the compiler sees them without `cfg(test)` and without the feature `fuzzing`.

use std::fs;
use std::path::Path;

use super::paths::is_word;

/// The beginnings of the attributes of tests, and of fuzz targets, which tests replay.
const TEST_ATTRIBUTES: [&str; 2] = ["#[cfg(test)]", "#[cfg(any(test,"];

/// A file of `src/`. Comments and strings are blank, and tests are removed.
pub(super) struct Source {
    /// The path relative to `src/`, with `/` between its parts.
    pub(super) path: String,
    pub(super) code: String,
}

impl Source {
    /// Blanks literals and removes tests.
    pub(super) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), code: without_tests(&blank_literals(text)) }
    }

    /// The top-level module of the file.
    pub(super) fn top(&self) -> &str {
        self.path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// The number of modules above the file's, the root included.
    pub(super) fn depth(&self) -> usize {
        let folders = self.path.matches('/').count();
        folders + usize::from(!self.path.ends_with("mod.rs"))
    }
}

/// All sources of `src/` except test modules.
pub(super) fn read_sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut texts = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of src") {
            let path = entry.expect("an entry of src").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(&root).expect("below src").to_str().expect("UTF-8").replace('\\', "/");
                texts.push((name, fs::read_to_string(&path).expect("text")));
            }
        }
    }
    let tests: Vec<_> = texts.iter().flat_map(|(path, text)| test_modules(path, &blank_literals(text))).collect();
    let is_test = |path: &str| {
        tests
            .iter()
            .any(|test| path.strip_prefix(test.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/')))
    };
    texts.retain(|(path, _)| !is_test(path));
    texts.iter().map(|(path, text)| Source::new(path, text)).collect()
}

/// The modules that `#[cfg(test)] mod …;` declares in `code`, as paths without an extension. Other attributes of the
/// module and its visibility are skipped.
pub(super) fn test_modules(path: &str, code: &str) -> Vec<String> {
    let folder =
        path.strip_suffix("mod.rs").map_or_else(|| format!("{}/", path.trim_end_matches(".rs")), str::to_owned);
    let folder = if path == "lib.rs" || path == "main.rs" { String::new() } else { folder };
    let attributes = TEST_ATTRIBUTES.iter().flat_map(|attribute| code.match_indices(attribute));
    let items = attributes.map(|(at, _)| without_attributes(&code[at..]));
    items
        .map(|item| item.trim_start_matches("pub(crate) ").trim_start_matches("pub "))
        .filter_map(|item| item.strip_prefix("mod ")?.split_once(';'))
        .filter(|(name, _)| name.chars().all(is_word))
        .map(|(name, _)| format!("{folder}{name}"))
        .collect()
}

/// An item without the attributes before it.
fn without_attributes(mut item: &str) -> &str {
    while let Some(attribute) = item.strip_prefix("#[") {
        item = attribute.split_once(']').map_or("", |(_, rest)| rest.trim_start());
    }
    item
}

/// The same code without the items under [`TEST_ATTRIBUTES`].
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = TEST_ATTRIBUTES.iter().filter_map(|attribute| rest.find(attribute)).min() {
        let (before, item) = rest.split_at(at);
        kept.push_str(before);
        rest = &item[item_length(item)..];
    }
    kept + rest
}

/// The length of an item, from its attributes to the brace or semicolon that ends it.
fn item_length(item: &str) -> usize {
    let mut depth = 0;
    for (at, char) in item.char_indices() {
        match char {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth -= 1;
                if depth == 0 && char == '}' {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}

/// The same text with comments, strings and characters replaced by blanks, byte for byte.
fn blank_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            'r' if !code.ends_with(is_word) || code.ends_with('b') => raw_string(rest).unwrap_or(0),
            '\'' => character(rest),
            _ => 0,
        };
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let (blank, behind) = rest.split_at(length);
            code.extend(blank.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
            rest = behind;
        }
    }
    code
}

/// The length of a block comment.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of a string literal.
fn string(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

/// The length of a raw string literal, if `text` begins with one.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(2 + hashes + body.find(&end)? + end.len())
}

/// The length of a character literal; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((escaped, _))) => text[escaped + 1..].find('\'').map_or(0, |end| escaped + 1 + end + 1),
        (Some(_), Some((end, '\''))) => end + 1,
        _ => 0,
    }
}
