"""An algorithm of a plug-in package: found by its entry point alone."""
