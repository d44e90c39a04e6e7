"""The screens: each fills the frame of a view with what its view model says."""
