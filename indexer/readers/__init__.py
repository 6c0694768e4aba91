"""Documents from files, folders and installed Python packages. Readers stream; a bad row never stops the rest."""
