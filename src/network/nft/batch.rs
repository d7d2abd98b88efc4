//! One transaction: every change in it happens, or none.

use super::{Element, Expressions, Set};
use crate::netlink::{Attributes, Kernel, Messages, Socket};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFNL_SUBSYS_NFTABLES` in the upper byte of the message type.
pub(super) const SUBSYSTEM: u16 = 10 << 8;
const SUBSYSTEM_NUMBER: u8 = 10;
const NEW_TABLE: u16 = 0;
pub(super) const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENTS: u16 = 12;
const DELETE_ELEMENTS: u16 = 14;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
pub(super) const FAMILY: u8 = 2;

pub(super) const TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const SET_NAME: u16 = 2;
const SET_ID: u16 = 10;
const ELEMENTS: u16 = 3;
const ACCEPT: u32 = 1;

/// An element with the longest chain name takes about 350 bytes, and attributes end at 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 150;

/// Where a base chain hangs, in the kernel's numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum ChainKind {
    Filter,
    Nat,
}

/// Changes to one table, carried out together by [`Batch::commit`].
#[derive(Debug)]
pub(crate) struct Batch<'t> {
    table: &'t str,
    messages: Messages,
    sets: u32,
}

impl<'t> Batch<'t> {
    pub(crate) fn new(table: &'t str) -> Self {
        let mut messages = Messages::default();
        messages.push(BATCH_BEGIN, 0, &[0, 0, 0, SUBSYSTEM_NUMBER], |_| ());
        Self { table, messages, sets: 0 }
    }

    fn push(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Attributes)) {
        self.messages.push(SUBSYSTEM | kind, flags, &[FAMILY, 0, 0, 0], |a| {
            a.string(TABLE, self.table);
            body(a);
        });
    }

    /// Starts with an empty table whether or not there was one.
    pub(crate) fn replace_table(&mut self) {
        self.push(NEW_TABLE, CREATE, |_| ());
        self.push(DELETE_TABLE, 0, |_| ());
        self.push(NEW_TABLE, CREATE, |_| ());
    }

    #[cfg(test)]
    pub(crate) fn delete_table(&mut self) {
        self.push(DELETE_TABLE, 0, |_| ());
    }

    pub(crate) fn add_base_chain(&mut self, name: &str, kind: ChainKind, hook: Hook, priority: i32) {
        let kind = match kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        };
        self.push(NEW_CHAIN, CREATE, |a| {
            a.string(CHAIN_NAME, name);
            a.nest(CHAIN_HOOK, |a| {
                a.net_u32(HOOK_NUMBER, hook as u32);
                a.bytes(HOOK_PRIORITY, &priority.to_be_bytes());
            });
            a.net_u32(CHAIN_POLICY, ACCEPT);
            a.string(CHAIN_TYPE, kind);
        });
    }

    pub(crate) fn add_chain(&mut self, name: &str) {
        self.push(NEW_CHAIN, CREATE, |a| a.string(CHAIN_NAME, name));
    }

    pub(crate) fn delete_chain(&mut self, name: &str) {
        self.push(DELETE_CHAIN, 0, |a| a.string(CHAIN_NAME, name));
    }

    /// Removes the rules of a chain.
    pub(crate) fn flush_chain(&mut self, name: &str) {
        self.push(DELETE_RULE, 0, |a| a.string(RULE_CHAIN, name));
    }

    pub(crate) fn add_rule(&mut self, chain: &str, expressions: &Expressions) {
        self.push(NEW_RULE, CREATE | APPEND, |a| {
            a.string(RULE_CHAIN, chain);
            a.nest(RULE_EXPRESSIONS, |a| a.extend(expressions.as_bytes()));
        });
    }

    pub(crate) fn add_set(&mut self, set: &Set<'_>) {
        self.sets += 1;
        let id = self.sets;
        self.push(NEW_SET, CREATE, |a| {
            a.string(SET_NAME, set.name);
            set.encode(a);
            a.net_u32(SET_ID, id);
        });
    }

    pub(crate) fn delete_set(&mut self, name: &str) {
        self.push(DELETE_SET, 0, |a| a.string(SET_NAME, name));
    }

    pub(crate) fn add_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(NEW_ELEMENTS, CREATE, set, elements);
    }

    /// Removes all elements of a set.
    pub(crate) fn flush_set(&mut self, name: &str) {
        self.push(DELETE_ELEMENTS, 0, |a| a.string(SET_NAME, name));
    }

    /// Removes elements by their keys.
    pub(crate) fn delete_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(DELETE_ELEMENTS, 0, set, elements);
    }

    fn elements(&mut self, kind: u16, flags: u16, set: &str, elements: &[Element]) {
        for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.push(kind, flags, |a| {
                a.string(SET_NAME, set);
                a.nest(ELEMENTS, |a| chunk.iter().for_each(|element| element.encode(a)));
            });
        }
    }

    /// Nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.count() == 1
    }

    pub(crate) fn commit(mut self, socket: &Socket) -> Result<(), Kernel> {
        if self.is_empty() {
            return Ok(());
        }
        let last = self.messages.acknowledge_last();
        self.messages.push(BATCH_END, 0, &[0, 0, 0, SUBSYSTEM_NUMBER], |_| ());
        socket.run_transaction(&self.messages, last)
    }
}
