//! Puts values into the places of a file of HTML: `{{name}}`. Pure.

use crate::problem::escape_html;

const SMALL_PAGE: &str = include_str!("assets/small.html");

/// The template with each place replaced by the value of its name. Values are not looked through again, so that a text
/// of a caller cannot become a place.
pub(super) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let length = values.iter().map(|(_, value)| value.len()).sum::<usize>();
    let mut page = String::with_capacity(template.len() + length);
    let mut rest = template;
    while let Some((before, place)) = rest.split_once("{{") {
        page.push_str(before);
        let Some((name, after)) = place.split_once("}}") else { break };
        let value = values.iter().find(|(known, _)| *known == name);
        page.push_str(value.map_or("", |(_, value)| value));
        rest = after;
    }
    page.push_str(rest);
    page
}

/// A page with one section, whose content is HTML.
pub(super) fn small_page(title: &str, script: &str, content: &str) -> String {
    fill(SMALL_PAGE, &[("title", &escape_html(title)), ("script", script), ("content", content)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_not_looked_through_again() {
        assert_eq!(fill("<{{a}}|{{b}}|{{c}}>", &[("a", "{{b}}"), ("b", "2")]), "<{{b}}|2|>");
        assert_eq!(fill("no place", &[]), "no place");
    }
}
