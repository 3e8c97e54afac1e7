//! Answers of servers that use codes of later versions of the protocol.
//!
//! Version 3 has status codes up to 8. Some servers answer with later ones all the same, such as 11 for "already exists" or 14 for "no
//! space", and the protocol library takes that for the end of the session. On the way to it, they become 4: "failure".

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// `SSH_FXP_STATUS`.
const STATUS: u8 = 101;
/// Where the last byte of the code stands in a packet: after length (4), type, id (4) and the code's other three, which are zero.
const CODE_AT: usize = 12;
const LAST_CODE: u8 = 8;
const FAILURE: u8 = 4;

/// A stream whose status codes are those of version 3.
pub struct Lenient<S> {
    inner: S,
    packet: Position,
}

/// Where in a packet the stream is.
#[derive(Default)]
struct Position {
    at: usize,
    length: usize,
    kind: u8,
}

impl<S> Lenient<S> {
    /// Nothing may have been read from `inner` yet.
    pub fn new(inner: S) -> Self {
        Self { inner, packet: Position::default() }
    }
}

impl Position {
    fn pass(&mut self, mut bytes: &mut [u8]) {
        while let Some(byte) = bytes.first_mut() {
            let mut passed = 1;
            match self.at {
                0..=3 => self.length = (self.length << 8) | usize::from(*byte),
                4 => self.kind = *byte,
                CODE_AT if self.kind == STATUS && *byte > LAST_CODE => *byte = FAILURE,
                CODE_AT.. => passed = bytes.len().min((self.length + 4).saturating_sub(self.at)).max(1),
                _ => {}
            }
            self.at += passed;
            if self.at >= 4 && self.at >= self.length + 4 {
                *self = Self::default();
            }
            bytes = &mut bytes[passed..];
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let this = &mut *self;
        let polled = Pin::new(&mut this.inner).poll_read(context, buffer);
        if let Poll::Ready(Ok(())) = &polled {
            this.packet.pass(&mut buffer.filled_mut()[before..]);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 1).unwrap();
        [&length.to_be_bytes()[..], &[kind], body].concat()
    }

    fn status(code: u8) -> Vec<u8> {
        packet(STATUS, &[0, 0, 0, 9, 0, 0, 0, code, 0, 0, 0, 1, 200, 0, 0, 0, 0])
    }

    #[test]
    fn only_later_codes_of_a_status_are_changed() {
        for (code, becomes) in [(0, 0), (1, 1), (8, 8), (9, FAILURE), (11, FAILURE), (31, FAILURE)] {
            let mut bytes = status(code);
            Position::default().pass(&mut bytes);
            assert_eq!(bytes, status(becomes));
        }
        let data = packet(103, &[200; 40]);
        let mut bytes = data.clone();
        Position::default().pass(&mut bytes);
        assert_eq!(bytes, data);
    }

    proptest! {
        /// However the stream is cut, every packet is seen for what it is.
        #[test]
        fn packets_are_found_wherever_reads_end(
            kinds in prop::collection::vec((any::<bool>(), 0_u8..40, prop::collection::vec(any::<u8>(), 0..60)), 1..8),
            cut in 1_usize..50,
        ) {
            let (mut sent, mut wanted) = (Vec::new(), Vec::new());
            for (is_status, code, body) in kinds {
                if is_status {
                    sent.extend(status(code));
                    wanted.extend(status(if code > LAST_CODE { FAILURE } else { code }));
                } else {
                    sent.extend(packet(103, &body));
                    wanted.extend(packet(103, &body));
                }
            }
            let mut position = Position::default();
            sent.chunks_mut(cut).for_each(|part| position.pass(part));
            prop_assert_eq!(sent, wanted);
        }
    }
}
