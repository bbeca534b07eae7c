"""A looped model as a model of transformers.

exported_config, exported_model, exported_cache, exported_attention
                 what an export consists of, beside the layers of `loopscope.model`
plain_parts      what stands there for parts of this package that an export cannot bring
assembly         the source of all that, in two files that need transformers and torch alone
exported_folder  the whole folder: `write_export`, and `read_export`, which is its inverse
live_module      the looped model inside a module of transformers
auto_classes     the classes in transformers' own registers, where loopscope is installed
"""
