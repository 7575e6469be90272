"""What comes out, recorded in files that can be compared byte for byte, before and after a change.

``python -m tests.freeze record DIR`` writes a record, ``python -m tests.freeze compare DIR_A DIR_B`` prints
which items differ and how. It runs the package of the current folder, by its public names, in two minutes;
``--quick`` records a part of each part.

Parts, for ``--only`` (several with commas):

- ``models``: random models over the whole grammar in the neurons of the package and of both frameworks;
  ``networks``: the shipped zoo, its architectures and the networks of the examples. Of each: the file that
  ``save`` writes (it has the version of its format, and no date), the C, all executions, memory, NIR, report.
- ``neurons``: the function and the torch modules, outputs and gradients; ``adapters``: those of SpikingJelly
  and snnTorch, and what ``convert`` makes; ``adapters-old`` the same with SpikingJelly 0.0.0.0.14, where
  ``.compat`` has it.
- ``refusals``: type and words of what is raised; ``texts``: what the narrow test folders raise, warn and log,
  as a set with counts (takes many minutes; in no record unless it is named).

A record of any commit, to compare with: make a worktree of the commit, copy this folder into it, and record
there: ``git worktree add --detach ../base COMMIT && cp -r tests/freeze ../base/tests/ && cd ../base && python
-m tests.freeze record ../base-record``. Then ``record ../now`` here and ``compare ../base-record ../now``; it
compares the parts that both have, and leaves with 1 if anything differs. Texts lie in PART/case/item.txt,
everything else is a digest in PART.json. One thread, one seed: another processor rounds otherwise.
"""
