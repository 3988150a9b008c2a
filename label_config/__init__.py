"""What people see while labelling: configurations made from classes (`build`) and understood by Tator (`reader`).

Depends on the standard library and defusedxml only.
"""
