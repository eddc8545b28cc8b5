//! The exported C functions: handles, strings, codes, panic guard; no logic.
