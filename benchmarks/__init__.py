"""Benchmarks: this project and its peers in one run, on the same data, results compared.

    python3 dev.py bench --list
    python3 dev.py bench matmul softmax --peers numpy,torch --rounds 9 --json out.json --plot out.png

`model` says what a row is, `rows` holds them as data (one module a family), `kits` how each library spells
the operations, `runner` measures one row, `supervisor` runs rows in processes of their own, `report` prints.
"""
