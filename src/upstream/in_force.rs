//! The clients of a thread under the configuration in force, for what outlives the one under which it began.

use std::cell::RefCell;
use std::rc::Rc;

use super::Client;

/// A thread's clients, whichever configuration they are of.
#[derive(Clone, Default)]
pub struct InForce(Rc<RefCell<Vec<Rc<Client>>>>);

impl InForce {
    /// From now on these are.
    pub fn put(&self, clients: &[Rc<Client>]) {
        *self.0.borrow_mut() = clients.to_vec();
    }

    /// The client in force to the upstream of the same name; where there is none any more, the same.
    #[must_use]
    pub fn client(&self, client: &Rc<Client>) -> Rc<Client> {
        let clients = self.0.borrow();
        Rc::clone(clients.iter().find(|known| known.name() == client.name()).unwrap_or(client))
    }
}
