//! A real Bot API client against the simulation.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod failures;
mod methods;
mod people;

use bot_api_sim::{Limits, Person, Sim};
use teloxide_core::types::ChatId;
use teloxide_core::{ApiError, Bot, RequestError};

const ANN: ChatId = ChatId(4711);

/// A simulation with Telegram's own limits, and Ann, who started the bot.
fn start() -> (Sim, Bot, Person) {
    let sim = Sim::start().unwrap();
    let bot = Bot::new(sim.token()).set_api_url(sim.api_url().parse().unwrap());
    let ann = sim.person(ANN.0, "Ann", Some("ann"));
    ann.says("/start");
    (sim, bot, ann)
}

/// The same with limits that do not matter.
fn quick() -> (Sim, Bot, Person) {
    let (sim, bot, ann) = start();
    sim.set_limits(Limits::times_faster(100));
    (sim, bot, ann)
}

/// Why Telegram refused a call.
fn refused<T: std::fmt::Debug>(result: Result<T, RequestError>) -> ApiError {
    match result.unwrap_err() {
        RequestError::Api(error) => error,
        other => panic!("{other}"),
    }
}

/// A picture of one black pixel.
fn png() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&[0]).unwrap();
    bytes
}
