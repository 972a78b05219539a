//! Values of the Prometheus text format.

/// The text of `/metrics`.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(String);

impl Metrics {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The whole text.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// The first series of `name` that has all of `labels`, each written as in `outcome="miss"`.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[&str]) -> f64 {
        let line = self.series(name, labels).next();
        line.unwrap_or_else(|| panic!("no {name} {labels:?} in\n{}", self.0))
    }

    /// The sum of all series of `name` that have all of `labels`.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.series(name, labels).sum()
    }

    /// The same for a counter.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are small whole numbers")]
    pub(crate) fn count(&self, name: &str, labels: &[&str]) -> u64 {
        self.sum(name, labels).round() as u64
    }

    fn series<'a>(&'a self, name: &'a str, labels: &'a [&str]) -> impl Iterator<Item = f64> + 'a {
        let is_series = move |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let has_labels = move |line: &&str| labels.iter().all(|label| line.contains(label));
        let lines = self.0.lines().filter(is_series).filter(has_labels);
        lines.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }
}
