//! The writes at the end of a transaction.

#[cfg(feature = "postgres")]
use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
#[cfg(feature = "postgres")]
use diesel::query_builder::{AstPass, QueryFragment, QueryId};

use crate::database::AnyConnection;

/// Writes of which none needs what another one writes, in any order: one statement of PostgreSQL.
/// In SQLite each is executed when it is added, with [`add_write`].
pub(crate) struct Writes<'a> {
    pub(crate) connection: &'a mut AnyConnection,
    #[cfg(feature = "postgres")]
    pub(crate) together: Together,
    /// The number of rows that the last statement changed.
    #[cfg(feature = "sqlite")]
    pub(crate) changed: usize,
}

impl<'a> Writes<'a> {
    pub(crate) fn new(connection: &'a mut AnyConnection) -> Self {
        Self {
            connection,
            #[cfg(feature = "postgres")]
            together: Together::default(),
            #[cfg(feature = "sqlite")]
            changed: 0,
        }
    }

    /// Returns the number of rows that the statement changed that was added last.
    pub(crate) fn finish(self) -> QueryResult<usize> {
        match self.connection {
            #[cfg(feature = "postgres")]
            AnyConnection::Postgres(connection) if !self.together.0.is_empty() => {
                self.together.execute(connection)
            }
            #[cfg(feature = "postgres")]
            AnyConnection::Postgres(_) => Ok(0),
            #[cfg(feature = "sqlite")]
            AnyConnection::Sqlite(_) => Ok(self.changed),
        }
    }
}

/// Adds a statement to [`Writes`]. One that diesel caches, as all of them are then kept as one
/// prepared statement; an update is none (`CachedSql`).
macro_rules! add_write {
    ($writes:expr, $statement:expr) => {
        match &mut *$writes.connection {
            #[cfg(feature = "postgres")]
            $crate::database::AnyConnection::Postgres(_) => {
                $writes.together.0.push(Box::new($statement));
            }
            #[cfg(feature = "sqlite")]
            $crate::database::AnyConnection::Sqlite(connection) => {
                $writes.changed = $statement.execute(connection)?;
            }
        }
    };
}
pub(crate) use add_write;

/// All but the last are common table expressions, which PostgreSQL executes to the end although
/// nothing reads them, in no order that it promises. None of them sees what another one writes.
#[cfg(feature = "postgres")]
#[derive(Default)]
pub(crate) struct Together(pub(crate) Vec<Box<dyn QueryFragment<Pg>>>);

#[cfg(feature = "postgres")]
impl QueryFragment<Pg> for Together {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let Some((last, others)) = self.0.split_last() else { return Ok(()) };
        for (index, statement) in others.iter().enumerate() {
            out.push_sql(if index == 0 { "with write_" } else { "), write_" });
            out.push_sql(&index.to_string());
            out.push_sql(" as (");
            statement.walk_ast(out.reborrow())?;
        }
        if !others.is_empty() {
            out.push_sql(") ");
        }
        last.walk_ast(out)
    }
}

#[cfg(feature = "postgres")]
impl QueryId for Together {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
}

#[cfg(feature = "postgres")]
impl RunQueryDsl<PgConnection> for Together {}
