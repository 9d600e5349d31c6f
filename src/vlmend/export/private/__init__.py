"""A linear head that scores embeddings which it never sees: encrypted, or shared among three parties.

The picture's embedding is made where the picture is, in the clear, by the image tower. What leaves that place is an
encrypted vector (`he`), or shares of it none of which says anything alone (`mpc`). The head is the text embeddings of
class names with the model's own scale and bias, or a linear layer of the user's.
"""
