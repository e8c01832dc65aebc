"""What people look at: HTML that loads nothing, and drawings as SVG. Shared by the report and by inspect."""
