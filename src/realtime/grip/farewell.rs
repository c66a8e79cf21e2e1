//! `Grip-Link: rel=gone`: whom the app is told of when a client that was held leaves.

use std::rc::Rc;

use super::ask::{Asked, Question};
use super::instruct::Instruct;
use super::layer::{Terms, invalid};
use crate::error::Error;
use crate::http::{Exchange, Target};
use crate::runtime::drain;

/// Dropped, it tells the app that the client has left. Nothing, for most.
pub(super) struct Farewell(Option<Box<Going>>);

struct Going {
    terms: Rc<Terms>,
    exchange: Rc<Exchange>,
    asked: Asked,
    target: Target,
}

impl Farewell {
    /// As the app wants it.
    pub(super) fn new(
        terms: &Rc<Terms>,
        asked: &Asked,
        instruct: &Instruct,
        exchange: &Rc<Exchange>,
    ) -> Result<Self, Error> {
        let Some(url) = &instruct.gone else { return Ok(Self(None)) };
        let target = terms.lead(&asked.target, exchange, url).map_err(invalid)?;
        let (terms, exchange) = (Rc::clone(terms), Rc::clone(exchange));
        Ok(Self(Some(Box::new(Going { terms, exchange, asked: asked.clone(), target }))))
    }

    /// The same, where the app has said another one since.
    pub(super) fn follow(
        mut self,
        terms: &Rc<Terms>,
        asked: &Asked,
        instruct: &Instruct,
        exchange: &Rc<Exchange>,
    ) -> Result<Self, Error> {
        if instruct.gone.is_some() {
            self.is_answered();
            return Self::new(terms, asked, instruct, exchange);
        }
        Ok(self)
    }

    /// The client has what it came for: it has not left.
    pub(super) fn is_answered(&mut self) {
        self.0 = None;
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        let Some(going) = self.0.take() else { return };
        // A gateway that stops has no time for it, and may have no tasks any more.
        if drain::is_draining() {
            return;
        }
        let Going { terms, exchange, asked, target } = *going;
        let Some(parting) = terms.links.farewell() else {
            tracing::debug!("an app is not told that a held client has left: too many have left at once");
            return;
        };
        tokio::task::spawn_local(async move {
            let _parting = parting;
            if let Err(error) = terms.ask(&exchange, &asked, target, None, Question::Gone).await {
                tracing::debug!("an app was not told that a held client has left: {error}");
            }
        });
    }
}
