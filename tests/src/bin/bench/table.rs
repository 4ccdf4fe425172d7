//! Samples and how they are printed.

use std::fmt::Write;

/// Repeated measurements of one thing.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds one.
    pub fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// The middle one; NaN if there is none.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            len if len % 2 == 1 => sorted[len / 2],
            len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
        }
    }

    /// The median of ours divided by theirs, round by round, with the least and the most.
    pub fn ratio(ours: &Samples, theirs: &Samples) -> String {
        let ratios = Samples(
            ours.0
                .iter()
                .zip(&theirs.0)
                .map(|(ours, theirs)| ours / theirs)
                .collect(),
        );
        let least = ratios.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        format!("{:.2} ({least:.2}–{most:.2})", ratios.median())
    }
}

/// A Markdown table.
pub struct Table {
    text: String,
}

impl Table {
    /// An empty table under a heading.
    pub fn new(title: &str, columns: &[&str]) -> Table {
        let mut text = format!("\n### {title}\n\n");
        let rule = columns
            .iter()
            .enumerate()
            .map(|(at, _)| if at == 0 { "---" } else { "---:" });
        let rule: Vec<&str> = rule.collect();
        let _ = writeln!(text, "| {} |", columns.join(" | "));
        let _ = writeln!(text, "| {} |", rule.join(" | "));
        Table { text }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: &[String]) {
        let _ = writeln!(self.text, "| {} |", cells.join(" | "));
    }

    /// Prints it.
    pub fn print(self) {
        println!("{}", self.text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_and_ratios_go_by_rounds() {
        let samples = |list: &[f64]| Samples(list.to_vec());
        assert_eq!(samples(&[3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(samples(&[4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        let ratio = Samples::ratio(&samples(&[2.0, 9.0, 4.0]), &samples(&[1.0, 3.0, 4.0]));
        assert_eq!(ratio, "2.00 (1.00–3.00)");
    }
}
