"""The VDR family: learned sparse encoders over the model's vocabulary."""
