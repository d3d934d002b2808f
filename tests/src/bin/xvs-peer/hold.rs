//! Many connections at the same time: all are open before the first is used.

use std::net::SocketAddr;

use anyhow::Result;
use xvs_tests::Answers;

use crate::http::Connection;

/// After so many failures in a row, the others are not tried: each would wait for its whole time limit.
const PATIENCE: usize = 3;

pub(crate) fn run(to: SocketAddr, count: usize) -> Answers {
    let mut answers = Answers::default();
    let opened = in_turn(0..count, &mut answers, |_| Connection::open(to));
    for name in in_turn(opened, &mut answers, |mut connection| connection.ask(false)) {
        answers.answered(&name);
    }
    answers
}

/// Takes a step with each item and gives what came of those that went well.
fn in_turn<I, T>(items: I, answers: &mut Answers, step: impl Fn(I::Item) -> Result<T>) -> Vec<T>
where
    I: IntoIterator,
    I::IntoIter: ExactSizeIterator,
{
    let mut done = Vec::new();
    let mut in_a_row = 0;
    let mut items = items.into_iter();
    while let Some(item) = items.next() {
        match step(item) {
            Ok(result) => {
                done.push(result);
                in_a_row = 0;
            }
            Err(error) => {
                answers.failed(format!("{error:#}"));
                in_a_row += 1;
            }
        }
        if in_a_row == PATIENCE {
            answers.given_up(items.len());
            break;
        }
    }
    done
}
