//! `/help`: the list of commands.

use futures::FutureExt;

use crate::flow::{Action, Arguments, ArgumentsError, Flow};
use crate::texts::{Html, Text, html, text};

pub(crate) struct HelpFlow;

impl Flow for HelpFlow {
    fn word(&self) -> &'static str {
        "help"
    }

    fn description(&self) -> Text {
        text!("help-description")
    }

    fn parse(&self, arguments: Arguments<'_>) -> Result<Action, ArgumentsError> {
        let flows = arguments.flows;
        arguments.expect_none(move |context, user| context.send(user.id, help(flows)).boxed())
    }
}

fn help(flows: &[&dyn Flow]) -> Html {
    let entries = flows
        .iter()
        .map(|flow| html!("help-entry", command = flow.word(), description = flow.description()));
    let list = Html::lines([html!("help-title")].into_iter().chain(entries));
    Html::paragraphs([list, html!("help-examples")])
}
