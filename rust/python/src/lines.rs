//! Where each key of a TOML text stands: Python's own parser gives values without positions.
use pyo3::exceptions::{PyRecursionError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use toml::de::{DeTable, DeValue};

/// What the parser says of what is nested more deeply than it follows.
const TOO_DEEP: &str = "recursion limit";

/// The line, from 1, of each table, key and element of a list, by its path: names of keys, and indexes.
///
/// # Errors
/// ValueError: it is no TOML. RecursionError: tables, lists and parts of keys are nested too deeply.
#[pyfunction]
pub(crate) fn toml_lines<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyDict>> {
    let table = DeTable::parse(text).map_err(|error| match error.message() {
        TOO_DEEP => PyRecursionError::new_err(TOO_DEEP), // the parser does not say where
        message => PyValueError::new_err(message.to_owned()),
    })?;
    let starts =
        std::iter::once(0).chain(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1));
    let mut lines = Lines { starts: starts.collect(), found: PyDict::new(py) };
    lines.table(&PyTuple::empty(py), table.get_ref())?;
    Ok(lines.found)
}

struct Lines<'py> {
    /// Where each line begins.
    starts: Vec<usize>,
    found: Bound<'py, PyDict>,
}

impl<'py> Lines<'py> {
    fn table(&mut self, path: &Bound<'py, PyTuple>, table: &DeTable<'_>) -> PyResult<()> {
        table.iter().try_for_each(|(key, value)| self.child(path, &**key.get_ref(), key.span().start, value.get_ref()))
    }

    /// Notes what stands at `name` below `path`, and all that is in it.
    fn child(
        &mut self,
        path: &Bound<'py, PyTuple>,
        name: impl IntoPyObject<'py>,
        at: usize,
        value: &DeValue<'_>,
    ) -> PyResult<()> {
        let here = path.add((name,))?.cast_into::<PyTuple>()?;
        self.found.set_item(&here, self.starts.partition_point(|start| *start <= at))?;
        match value {
            DeValue::Table(table) => self.table(&here, table),
            DeValue::Array(list) => {
                let mut each = list.iter().enumerate();
                each.try_for_each(|(index, one)| self.child(&here, index, one.span().start, one.get_ref()))
            }
            _ => Ok(()),
        }
    }
}
