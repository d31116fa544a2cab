//! The extension module `fanwire._engine`.
