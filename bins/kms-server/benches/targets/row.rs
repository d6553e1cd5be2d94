//! A row of the results table.

use std::path::Path;

use serde_json::{Value, json};

/// A measurement and its target.
pub(crate) struct Row {
    pub(crate) name: String,
    /// The measured value.
    pub(crate) measured: f64,
    /// The value it is compared with; for a plain figure, its limit.
    pub(crate) limit: f64,
    pub(crate) unit: &'static str,
    /// The highest allowed ratio of `measured` to `limit`.
    pub(crate) target: f64,
}

impl Row {
    pub(crate) fn ratio(&self) -> f64 {
        self.measured / self.limit
    }

    pub(crate) fn ok(&self) -> bool {
        self.ratio() <= self.target
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name, "measured": self.measured, "limit": self.limit, "unit": self.unit,
            "ratio": self.ratio(), "target": self.target, "ok": self.ok(),
        })
    }
}

/// Prints the rows as a table, and writes them to `target/bench.json`.
pub(crate) fn print(rows: &[Row]) {
    println!("\n| what | measured | compared with | unit | ratio | target | |");
    println!("| --- | ---: | ---: | --- | ---: | ---: | --- |");
    for row in rows {
        let Row { name, measured, limit, unit, target, .. } = row;
        let ok = if row.ok() { "met" } else { "missed" };
        let ratio = row.ratio();
        println!(
            "| {name} | {measured:.3} | {limit:.3} | {unit} | {ratio:.2} | {target:.2} | {ok} |"
        );
    }
    let all: Vec<_> = rows.iter().map(Row::json).collect();
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench.json");
    std::fs::write(target, serde_json::to_string_pretty(&all).unwrap()).unwrap();
}
