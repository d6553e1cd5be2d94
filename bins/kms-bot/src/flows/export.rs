//! `/export`: the wallet's key, on the vault page alone.

use futures::FutureExt;
use kms_types::Purpose;

use crate::chat::incoming::User;
use crate::context::{Context, HandlerResult};
use crate::flow::{Action, Arguments, ArgumentsError, Flow};
use crate::page::{OnPage, PageLink};
use crate::texts::{Text, html, text};

const WORD: &str = "export";

pub(crate) struct ExportFlow;

impl Flow for ExportFlow {
    fn word(&self) -> &'static str {
        WORD
    }

    fn description(&self) -> Text {
        text!("export-description")
    }

    fn parse(&self, arguments: Arguments<'_>) -> Result<Action, ArgumentsError> {
        let open = arguments.expect_none(|context, user| open(context, user).boxed());
        open.map_err(|_error| ArgumentsError::Password)
    }
}

async fn open(context: &Context, user: &User) -> HandlerResult {
    if context.account(user).await?.is_none() {
        return Ok(());
    }
    let step = OnPage { purpose: Purpose::Export, resume: WORD.to_owned(), message: None };
    let link = PageLink::configured(context).await?;
    link.ask(context, user, None, &html!("export-on-page"), step).await
}
