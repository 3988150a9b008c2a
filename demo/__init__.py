"""A first hour with Tator: a private Label Studio, a project with pictures, and a backend beside it."""
