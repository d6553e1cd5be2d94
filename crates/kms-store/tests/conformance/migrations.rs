//! The initial migrations of both dialects are rendered from one template.

use std::path::Path;

const DIALECTS: [(&str, [(&str, &str); 3]); 2] = [
    (
        "postgres",
        [
            ("{{bytes}}", "bytea"),
            ("{{identity}}", "bigint generated always as identity"),
            ("{{transaction_id}}", "(pg_current_xact_id()::text::bigint)"),
        ],
    ),
    (
        "sqlite",
        [
            ("{{bytes}}", "blob"),
            ("{{identity}} primary key", "integer primary key autoincrement"),
            ("{{transaction_id}}", "0"),
        ],
    ),
];

/// Everything after the comment that documents the template itself.
fn schema(template: &str) -> &str {
    template.split_once("\n--\n").unwrap().1
}

/// `UPDATE_MIGRATIONS=1` writes the files instead of comparing them.
#[test]
fn initial_migrations_are_rendered_from_the_template() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
    let template = std::fs::read_to_string(folder.join("schema.sql")).unwrap();
    for (dialect, words) in DIALECTS {
        let rendered =
            words.into_iter().fold(schema(&template).to_owned(), |sql, (placeholder, word)| {
                sql.replace(placeholder, word)
            });
        assert!(!rendered.contains("{{"), "{dialect}: unknown placeholder");
        let file = folder.join(dialect).join("0001_initial/up.sql");
        if std::env::var_os("UPDATE_MIGRATIONS").is_some() {
            std::fs::write(file, rendered).unwrap();
        } else {
            let written = std::fs::read_to_string(file).unwrap();
            assert!(written == rendered, "{dialect}: run `just migrations`");
        }
    }
}
