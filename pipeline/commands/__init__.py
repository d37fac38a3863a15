"""The commands of mser: options in, one call into the pipeline, a result out."""
