//! Paths and use declarations in source text.

/// A path of a use declaration.
#[derive(Clone, Debug)]
pub(super) struct UsedPath {
    pub(super) segments: Vec<String>,
    /// The name behind `as`.
    pub(super) alias: Option<String>,
}

impl UsedPath {
    /// The name that the declaration brings into scope; `*` for all names of a module.
    pub(super) fn name(&self) -> &str {
        let last = self.segments.iter().rfind(|segment| *segment != "self");
        self.alias.as_deref().or(last.map(String::as_str)).unwrap_or_default()
    }
}

/// The use declarations of `code` with whether each is a re-export, and the code without them.
pub(super) fn uses(code: &str) -> (Vec<(bool, UsedPath)>, String) {
    let (mut found, mut rest) = (Vec::new(), code.to_owned());
    for at in words(code, "use") {
        let before = code[..at].trim_end();
        let is_public = before.ends_with("pub") || before.ends_with(')');
        if !(is_public || before.is_empty() || before.ends_with([';', '{', '}', ']'])) {
            continue;
        }
        let Some(end) = code[at..].find(';') else { continue };
        let mut used = Vec::new();
        tree(&code[at + "use".len()..], &mut Vec::new(), &mut used);
        found.extend(used.into_iter().map(|path| (is_public, path)));
        rest.replace_range(at..at + end, &" ".repeat(end));
    }
    (found, without_visibilities(rest))
}

/// Replaces `(in …)` of visibilities, whose paths import nothing, by blanks.
fn without_visibilities(mut code: String) -> String {
    while let Some(at) = code.find("pub(in ") {
        let end = code[at..].find(')').map_or(code.len(), |length| at + length);
        code.replace_range(at..end, &" ".repeat(end - at));
    }
    code
}

/// The positions of `name` as a whole word.
pub(super) fn words(code: &str, name: &str) -> Vec<usize> {
    let found = code.match_indices(name).map(|(at, _)| at);
    found.filter(|at| !code[..*at].ends_with(is_word) && !code[at + name.len()..].starts_with(is_word)).collect()
}

/// All paths that begin with `root`, without it; a tree in braces is several paths.
pub(super) fn paths(code: &str, root: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for at in words(code, root) {
        let before = code[..at].trim_end();
        let behind_another = before.strip_suffix("::").is_some_and(|before| before.ends_with(is_word));
        if behind_another || before.ends_with('.') {
            continue;
        }
        let rest = code[at + root.len()..].trim_start();
        if let Some(rest) = rest.strip_prefix("::") {
            let mut used = Vec::new();
            tree(rest, &mut Vec::new(), &mut used);
            found.extend(used.into_iter().map(|path| path.segments));
        } else if before.ends_with("use") {
            found.push(Vec::new());
        }
    }
    found
}

/// Reads one use tree from the start of `code` into paths with aliases; returns the rest of `code`.
fn tree<'a>(code: &'a str, prefix: &mut Vec<String>, found: &mut Vec<UsedPath>) -> &'a str {
    let code = code.trim_start();
    if let Some(mut rest) = code.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            if let Some(behind) = rest.strip_prefix('}') {
                return behind;
            }
            let left = rest.len();
            rest = tree(rest, prefix, found).trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest);
            if rest.len() == left {
                // Not a use tree, as in a macro.
                return rest;
            }
        }
    }
    let end = code.find(|char: char| !is_word(char) && char != '*').unwrap_or(code.len());
    let (name, rest) = code.split_at(end);
    if name.is_empty() {
        return code;
    }
    prefix.push(name.to_owned());
    let trimmed = rest.trim_start();
    let behind = if let Some(further) = trimmed.strip_prefix("::") {
        tree(further, prefix, found)
    } else {
        let alias = trimmed.strip_prefix("as ").map(str::trim_start);
        let behind = alias.map_or(rest, |alias| alias.trim_start_matches(is_word));
        let alias = alias.map(|alias| alias[..alias.len() - behind.len()].to_owned());
        found.push(UsedPath { segments: prefix.clone(), alias });
        behind
    };
    prefix.pop();
    behind
}

pub(super) fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}
