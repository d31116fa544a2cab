//! Which kind an object is, told by the address and the flags of its class. Runs no Python code of the object's.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use std::ptr::addr_of_mut;

/// What an object is, subclasses included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int,
    Float,
    Boolean,
    Null,
    Dict,
    /// Of a class derived from `dict`: its order and pairs are what its `items` says (`OrderedDict.move_to_end`).
    DictDerived,
    List,
    Tuple,
    Bytes,
    Other,
}

impl Kind {
    /// # Safety
    /// `object` is alive and the thread attached.
    #[inline(always)]
    pub(super) unsafe fn of(object: *mut ffi::PyObject) -> Self {
        // SAFETY: the object is alive (this function's contract); the addresses of the types are only compared.
        unsafe {
            let class = ffi::Py_TYPE(object);
            if class == addr_of_mut!(ffi::PyUnicode_Type) {
                Self::Text
            } else if class == addr_of_mut!(ffi::PyLong_Type) {
                Self::Int
            } else if class == addr_of_mut!(ffi::PyFloat_Type) {
                Self::Float
            } else if class == addr_of_mut!(ffi::PyBool_Type) {
                Self::Boolean
            } else if class == addr_of_mut!(ffi::PyDict_Type) {
                Self::Dict
            } else if class == addr_of_mut!(ffi::PyList_Type) {
                Self::List
            } else if object == ffi::Py_None() {
                Self::Null
            } else {
                Self::of_derived(class)
            }
        }
    }

    /// # Safety
    /// `class` is alive and the thread attached.
    #[cold]
    unsafe fn of_derived(class: *mut ffi::PyTypeObject) -> Self {
        // SAFETY: the class and its own class are alive (this function's contract); reads flags and addresses.
        let flags = unsafe {
            if ffi::Py_TYPE(class.cast()) != addr_of_mut!(ffi::PyType_Type) && is_enum(class) {
                return Self::Other; // its value counts, whatever else it derives from
            }
            ffi::PyType_GetFlags(class)
        };
        for (flag, kind) in [
            (ffi::Py_TPFLAGS_TUPLE_SUBCLASS, Self::Tuple),
            (ffi::Py_TPFLAGS_UNICODE_SUBCLASS, Self::Text),
            (ffi::Py_TPFLAGS_LONG_SUBCLASS, Self::Int),
            (ffi::Py_TPFLAGS_DICT_SUBCLASS, Self::DictDerived),
            (ffi::Py_TPFLAGS_LIST_SUBCLASS, Self::List),
            (ffi::Py_TPFLAGS_BYTES_SUBCLASS, Self::Bytes),
        ] {
            if flags & flag != 0 {
                return kind;
            }
        }
        // SAFETY: both are classes and alive; looks along the first's MRO, runs no Python code.
        if unsafe { ffi::PyType_IsSubtype(class, addr_of_mut!(ffi::PyFloat_Type)) } != 0 {
            Self::Float
        } else {
            Self::Other
        }
    }
}

/// Whether a class is an `Enum`.
///
/// # Safety
/// `class` is alive and the thread attached.
unsafe fn is_enum(class: *mut ffi::PyTypeObject) -> bool {
    static ENUM_META: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    // SAFETY: attached (this function's contract).
    let py = unsafe { Python::assume_attached() };
    // SAFETY: all three are classes and alive; looks along the first's MRO, runs no Python code.
    ENUM_META
        .import(py, "enum", "EnumMeta")
        .is_ok_and(|meta| unsafe { ffi::PyType_IsSubtype(ffi::Py_TYPE(class.cast()), meta.as_type_ptr()) != 0 })
}

/// Whether `object` gives its bytes through the buffer protocol (`bytearray`, `memoryview`, `array`, numpy's arrays).
pub(crate) fn has_buffer(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: alive and attached, as Bound proves; looks at a slot of the type.
    unsafe { ffi::PyObject_CheckBuffer(object.as_ptr()) != 0 }
}

/// Whether `object` is a number, `bool` or `None`, or derives from one, whatever else it can do.
pub(crate) fn is_plain(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: alive and attached, as Bound proves.
    matches!(unsafe { Kind::of(object.as_ptr()) }, Kind::Int | Kind::Float | Kind::Boolean | Kind::Null)
}
