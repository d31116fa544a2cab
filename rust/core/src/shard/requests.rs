//! Requests that the owner of a path answers: GET and HEAD, or any method with its whole body, where the owner wants bodies.
use super::answers::{Refusal, check_plain};
use super::{Io, Shard};
use crate::channel::View;
use crate::http::{Body, RequestHead};
use crate::messages::Event;
use crate::routes::Placed;
use crate::session::{Asked, Incoming};

/// The word that a client may send its body (RFC 9110 §10.1.1).
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl<I: Io> Shard<I> {
    /// Has the owner answer, once all of the request is there.
    pub(super) fn answer_request(&mut self, slot: u32, route: &Placed, head: &RequestHead<'_>) -> Result<(), Refusal> {
        let is_fetching = matches!(head.method, "GET" | "HEAD");
        if !route.asks.bodies {
            check_plain(head)?;
        } else if !is_fetching {
            self.check_may_open(route, head)?; // what changes something is no other site's to ask for
        }
        let readable_by = self.fetchable_by(route, head);
        let asked = Asked { is_plain: true, is_head: head.method == "HEAD", readable_by, ..Asked::default() };
        let request = Box::new(self.own(slot, route, head, (Vec::new(), View::default())));
        if !route.asks.bodies || head.body.is_done() {
            self.ask(slot, asked, |whose| Event::Asking(whose, request, Vec::new()));
            return Ok(());
        }
        if let Body::Length(bytes) = head.body {
            self.check_body(bytes)?;
        }
        let session = &mut self.slab.at(slot).session;
        session.take_in(Incoming { request, asked, body: head.body, content: Vec::new() });
        if head.expects_continue() {
            self.slab.at(slot).transport.outbox.bytes_mut().extend_from_slice(CONTINUE);
            self.flush(slot);
        }
        Ok(())
    }

    /// Takes some of a body that an owner wants; with the last of it the owner is asked.
    pub(super) fn take_body(&mut self, slot: u32, bytes: &[u8]) -> usize {
        let Some(incoming) = self.slab.at(slot).session.incoming_mut() else { return bytes.len() };
        let taken = incoming.take(bytes).map_err(Refusal::from);
        let (come, is_done) = (incoming.content.len() as u64, incoming.body.is_done());
        match taken.and_then(|taken| self.check_body(come).map(|()| taken)) {
            Err(refusal) => {
                self.refuse(slot, &refusal);
                bytes.len()
            }
            Ok(taken) => {
                if is_done
                    && let Some(Incoming { request, asked, content, .. }) = self.slab.at(slot).session.take_incoming()
                {
                    self.timers.set(slot, self.settings.handshake_timeout); // for the answer
                    self.ask(slot, asked, |whose| Event::Asking(whose, request, content));
                }
                taken
            }
        }
    }

    fn check_body(&self, bytes: u64) -> Result<(), Refusal> {
        let bytes_max = self.settings.body_bytes_max;
        if bytes <= bytes_max as u64 {
            return Ok(());
        }
        Err(Refusal::new(413, format!("a body of {bytes} bytes or more is over the bound of {bytes_max}")))
    }
}
