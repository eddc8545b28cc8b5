//! A root: one version of a database as a persistent radix tree of fan-out 64. A changed root shares every untouched
//! node with the one it was made from. spec: state-machine 7.2.

use std::array;
use std::fmt;
use std::sync::Arc;

use super::page::PageRef;
use crate::types::PageNumber;

const BITS: u32 = 6;
const FAN_OUT: usize = 1 << BITS;

// An inner node is one in 64; boxing its rest would cost every read a step.
#[allow(clippy::large_enum_variant)]
#[derive(Clone)]
enum Node {
    Inner([Option<Arc<Node>>; FAN_OUT]),
    Leaf([Option<PageRef>; FAN_OUT]),
}

impl Node {
    fn empty(level: u32) -> Node {
        if level == 0 { Node::Leaf(array::from_fn(|_| None)) } else { Node::Inner(array::from_fn(|_| None)) }
    }
}

fn slot(index: u32, level: u32) -> usize {
    ((index >> (level * BITS)) as usize) & (FAN_OUT - 1)
}

/// Number of levels above the leaves that reach `index`.
fn levels_for(index: u32) -> u32 {
    let mut level = 0;
    while (level + 1) * BITS < u32::BITS && index >> ((level + 1) * BITS) != 0 {
        level += 1;
    }
    level
}

/// The tree alone: index (page number - 1) to page.
#[derive(Clone, Default)]
pub(super) struct Tree {
    level: u32,
    top: Option<Arc<Node>>,
}

impl Tree {
    fn get(&self, index: u32) -> Option<&PageRef> {
        if levels_for(index) > self.level {
            return None;
        }
        let mut node = self.top.as_deref()?;
        let mut level = self.level;
        loop {
            match node {
                Node::Leaf(pages) => return pages[slot(index, 0)].as_ref(),
                Node::Inner(children) => node = children[slot(index, level)].as_deref()?,
            }
            level -= 1;
        }
    }

    fn set(&mut self, index: u32, page: PageRef) {
        let wanted = levels_for(index);
        if self.top.is_none() {
            self.level = wanted;
        }
        while self.level < wanted {
            let mut above = array::from_fn(|_| None);
            above[0] = self.top.take();
            self.top = Some(Arc::new(Node::Inner(above)));
            self.level += 1;
        }
        let mut level = self.level;
        let mut place = &mut self.top;
        loop {
            let node = Arc::make_mut(place.get_or_insert_with(|| Arc::new(Node::empty(level))));
            match node {
                Node::Leaf(pages) => {
                    pages[slot(index, 0)] = Some(page);
                    return;
                }
                Node::Inner(children) => place = &mut children[slot(index, level)],
            }
            level -= 1;
        }
    }

    /// Drops every page with an index of at least `count`.
    fn truncate(&mut self, count: u32) {
        if count == 0 {
            *self = Tree::default();
            return;
        }
        if u64::from(count) >= 1_u64 << ((self.level + 1) * BITS) {
            return;
        }
        if let Some(top) = &mut self.top {
            truncate_node(top, self.level, count);
        }
        while self.level > levels_for(count - 1) {
            let Some(Node::Inner(children)) = self.top.as_deref() else {
                self.level = levels_for(count - 1);
                return;
            };
            self.top = children[0].clone();
            self.level -= 1;
        }
    }
}

fn truncate_node(node: &mut Arc<Node>, level: u32, count: u32) {
    let first_beyond = slot(count, level);
    match Arc::make_mut(node) {
        Node::Leaf(pages) => pages[first_beyond..].fill(None),
        Node::Inner(children) => {
            let partial = count & ((1_u32 << (level * BITS)) - 1);
            let mut drop_from = first_beyond;
            if partial != 0 {
                if let Some(child) = &mut children[first_beyond] {
                    truncate_node(child, level - 1, partial);
                }
                drop_from += 1;
            }
            children[drop_from..].fill(None);
        }
    }
}

struct Inner {
    tree: Tree,
    page_count: u32,
    version: u32,
}

/// One version of a database. A clone is O(1). A page below the page count that was never stored is `None` and reads
/// as zeros.
#[derive(Clone)]
pub struct Root {
    inner: Arc<Inner>,
}

impl Root {
    pub(super) fn new(tree: Tree, page_count: u32, version: u32) -> Root {
        Root { inner: Arc::new(Inner { tree, page_count, version }) }
    }

    /// A root of these pages, from page 1 on.
    pub(super) fn from_pages(pages: impl IntoIterator<Item = PageRef>, version: u32) -> Root {
        let mut tree = Tree::default();
        let mut page_count = 0;
        for page in pages {
            tree.set(page_count, page);
            page_count += 1;
        }
        Root::new(tree, page_count, version)
    }

    /// Size in pages.
    #[must_use]
    pub fn page_count(&self) -> u32 {
        self.inner.page_count
    }

    /// Number that belongs to this root alone (within its database, until 2^32 versions were made).
    #[must_use]
    pub fn version(&self) -> u32 {
        self.inner.version
    }

    /// The page, if it was stored.
    #[must_use]
    pub fn get(&self, number: PageNumber) -> Option<&PageRef> {
        self.inner.tree.get(number.0.checked_sub(1)?)
    }

    /// The same pages with another version.
    pub(super) fn with_version(&self, version: u32) -> Root {
        Root::new(self.inner.tree.clone(), self.inner.page_count, version)
    }

    /// These pages laid over this root, cut to `page_count`.
    pub(super) fn laid_over<'a>(
        &self,
        pages: impl IntoIterator<Item = (PageNumber, &'a PageRef)>,
        page_count: u32,
        version: u32,
    ) -> Root {
        let mut tree = self.inner.tree.clone();
        if page_count < self.inner.page_count {
            tree.truncate(page_count);
        }
        for (number, page) in pages {
            if number.0 != 0 && number.0 <= page_count {
                tree.set(number.0 - 1, page.clone());
            }
        }
        Root::new(tree, page_count, version)
    }

    pub(super) fn weak(&self) -> WeakRoot {
        WeakRoot(Arc::downgrade(&self.inner))
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root")
            .field("version", &self.version())
            .field("page_count", &self.page_count())
            .finish_non_exhaustive()
    }
}

/// Tells whether a root is still in use.
pub(super) struct WeakRoot(std::sync::Weak<Inner>);

impl WeakRoot {
    pub(super) fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::testing::page;
    use super::*;

    fn content(root: &Root) -> BTreeMap<u32, PageRef> {
        let numbers = 1..=root.page_count();
        numbers.filter_map(|number| Some((number, root.get(PageNumber(number))?.clone()))).collect()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(u32, u8),
        Resize(u32),
    }

    fn number() -> impl Strategy<Value = u32> {
        prop_oneof![1_u32..200, 1_u32..9000, 260_000_u32..300_000]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn the_tree_is_a_map_and_old_roots_do_not_change(
            steps in prop::collection::vec(
                prop_oneof![
                    6 => (number(), any::<u8>()).prop_map(|(number, byte)| Step::Set(number, byte)),
                    1 => number().prop_map(Step::Resize),
                ],
                1..60,
            )
        ) {
            let mut root = Root::from_pages([page(0)], 1);
            let mut model = BTreeMap::from([(1, page(0))]);
            let first = root.clone();
            let mut kept = Vec::new();

            for step in steps {
                match step {
                    Step::Set(number, byte) => {
                        let page = page(byte);
                        let count = root.page_count().max(number);
                        root = root.laid_over([(PageNumber(number), &page)], count, 2);
                        model.insert(number, page);
                    }
                    Step::Resize(count) => {
                        root = root.laid_over([], count, 2);
                        model.retain(|number, _| *number <= count);
                    }
                }
                if kept.len() < 4 {
                    kept.push((root.clone(), model.clone()));
                }
                let probe = root.page_count();
                prop_assert_eq!(root.get(PageNumber(probe)), model.get(&probe));
                prop_assert_eq!(root.get(PageNumber(probe + 1)), None);
            }

            prop_assert_eq!(&content(&root), &model);
            prop_assert_eq!(first.page_count(), 1);
            for (old, old_model) in kept {
                prop_assert_eq!(&content(&old), &old_model);
            }
        }
    }

    #[test]
    fn the_highest_page_number_is_reached() {
        let last = page(7);

        let root = Root::from_pages([page(0)], 1).laid_over([(PageNumber(u32::MAX), &last)], u32::MAX, 2);

        assert_eq!(root.get(PageNumber(u32::MAX)), Some(&last));
        assert_eq!(root.get(PageNumber(1)), Some(&page(0)));
        assert_eq!(root.get(PageNumber(0)), None);
        assert_eq!(root.laid_over([], 1, 3).get(PageNumber(u32::MAX)), None);
    }

    #[test]
    fn a_cut_at_any_edge_of_a_level_keeps_what_is_below_and_nothing_above_comes_back() {
        const EDGES: [u32; 17] =
            [1, 2, 63, 64, 65, 66, 128, 129, 4095, 4096, 4097, 4098, 8192, 8193, 262_144, 262_145, 262_146];
        let (mark, far) = (page(1), PageNumber(300_000));
        let whole = EDGES.iter().map(|number| (PageNumber(*number), &mark));
        let whole = Root::from_pages([page(0)], 1).laid_over(whole, 262_146, 2);
        for cut in EDGES {
            let small = whole.laid_over([], cut, 3);
            let again = small.laid_over([(far, &mark)], far.0, 4);
            for number in EDGES {
                let expected = (number <= cut).then_some(&mark);
                assert_eq!(small.get(PageNumber(number)), expected, "{number} after a cut to {cut}");
                assert_eq!(again.get(PageNumber(number)), expected, "{number} after {cut} and back");
            }
            if cut < 10_000 {
                let kept: Vec<u32> = content(&small).into_keys().collect();
                assert_eq!(kept, EDGES.into_iter().filter(|edge| *edge <= cut).collect::<Vec<_>>());
            }
            assert_eq!(again.get(far), Some(&mark));
        }
        assert_eq!((whole.page_count(), whole.get(PageNumber(262_146))), (262_146, Some(&mark)));
    }

    #[test]
    fn a_tree_is_no_deeper_than_its_size_needs() {
        let mark = page(1);
        let level = |root: &Root| root.inner.tree.level;
        let far = [(PageNumber(300_000), &mark)];
        let with_first = Root::from_pages([page(0)], 1).laid_over(far, far[0].0.0, 2);
        let without_any = Root::new(Tree::default(), 0, 1).laid_over(far, far[0].0.0, 2);

        for root in [with_first, without_any] {
            assert_eq!(level(&root), 3);
            for (count, expected) in [(4097, 2), (4096, 1), (65, 1), (64, 0), (1, 0)] {
                assert_eq!(level(&root.laid_over([], count, 3)), expected, "cut to {count}");
            }
        }
    }
}
