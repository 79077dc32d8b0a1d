"""The rehearsal: a profile's whole DAG on stand-ins of its datasets and weights, with sizes changed and nothing else.

    make rehearse                   # PROFILE=paper
    make rehearse PROFILE=gpu

Nothing is measured here. It shows, without the data, the hub or a GPU, that every stage of a profile reads what it is
given and writes what the next one needs; and which items of the paper come out.
"""
