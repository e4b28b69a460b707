//! Memory for data to send: `h2` owns it until it is written, then it is reused.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Buf;

use crate::limit::{HTTP2_BLOCK, HTTP2_KEPT_BLOCKS};

/// The free blocks of a worker.
#[derive(Debug, Default)]
pub(crate) struct Blocks(RefCell<Vec<Vec<u8>>>);

impl Blocks {
    /// Empty memory.
    pub(super) fn take(&self) -> Vec<u8> {
        self.0.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(HTTP2_BLOCK))
    }

    /// Takes memory back.
    pub(super) fn keep(&self, mut memory: Vec<u8>) {
        let mut free = self.0.borrow_mut();
        if free.len() < HTTP2_KEPT_BLOCKS && (HTTP2_BLOCK..=4 * HTTP2_BLOCK).contains(&memory.capacity()) {
            memory.clear();
            free.push(memory);
        }
    }
}

/// Data for `h2`.
#[derive(Debug)]
pub(crate) struct Block {
    memory: Vec<u8>,
    at: usize,
    home: Rc<Blocks>,
}

impl Block {
    /// The data of `memory` from `at` on.
    pub(super) fn new(memory: Vec<u8>, at: usize, home: Rc<Blocks>) -> Self {
        Self { memory, at, home }
    }
}

impl Buf for Block {
    fn remaining(&self) -> usize {
        self.memory.len() - self.at
    }

    fn chunk(&self) -> &[u8] {
        &self.memory[self.at..]
    }

    fn advance(&mut self, count: usize) {
        self.at = (self.at + count).min(self.memory.len());
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.home.keep(std::mem::take(&mut self.memory));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back() {
        let home = Rc::new(Blocks::default());
        let mut memory = home.take();
        memory.extend_from_slice(b"abc");
        let mut block = Block::new(memory, 1, home.clone());
        block.advance(1);
        assert_eq!(block.chunk(), b"c");
        drop(block);
        assert_eq!(home.0.borrow().len(), 1);
        assert!(home.take().is_empty() && home.0.borrow().is_empty());
    }
}
