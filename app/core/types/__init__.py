"""The data model: what passes between the layers. Frozen, slotted, no behaviour beyond small derivations."""
