//! Writes of one transaction that need nothing of each other, in one statement of PostgreSQL.

use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};

/// All but the last are common table expressions, which PostgreSQL executes to the end although
/// nothing reads them. None of them sees what another one writes.
pub(crate) struct Together<'a> {
    pub(crate) first: &'a [&'a dyn QueryFragment<Pg>],
    pub(crate) last: &'a dyn QueryFragment<Pg>,
}

impl QueryFragment<Pg> for Together<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        for (index, statement) in self.first.iter().enumerate() {
            out.push_sql(if index == 0 { "with write_" } else { "), write_" });
            out.push_sql(&index.to_string());
            out.push_sql(" as (");
            statement.walk_ast(out.reborrow())?;
        }
        out.push_sql(") ");
        self.last.walk_ast(out)
    }
}

impl QueryId for Together<'_> {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
}

impl RunQueryDsl<PgConnection> for Together<'_> {}
