"""Notebook values on their way between processes: which names a cell needs, and how their values are
pickled and mapped.

Pure: imports the standard library, cloudpickle and msgspec only. Used by the kernel and by the workers;
torch is looked at where it is already imported (`sys.modules`) and imported only while loading a payload
that holds tensors.
"""
